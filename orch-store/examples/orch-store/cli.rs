//! What can be said on the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use orch_store::Revision;

use crate::access::Access;
use crate::place::Place;

const PLACES: &str = "\
Below, orch-store stands for `cargo run --release --example orch-store --`, or target/release/examples/orch-store.

Places:
  A PLACE is the folder of an embedded store, or the endpoints of an etcd:
    ./orch-data/store
    http://127.0.0.1:2379
    https://10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379

  get, list, watch, verify, backup and the FROM of copy read a folder beside the process that has it open, and change
  nothing in it. compact, restore and the TO of copy need it for themselves: stop the cluster first.

Examples:
  orch-store list ./orch-data/store /registry/pods/
  orch-store get ./orch-data/store /registry/pods/default/web | jq .status
  orch-store backup ./orch-data/store monday.bak
  orch-store verify monday.bak
  orch-store restore monday.bak ./new-store
  orch-store --cacert ca.crt --cert me.crt --key me.key copy https://10.0.0.1:2379 ./orch-data/store

Exit status:
  0 done; 1 the answer is no: a key that does not exist, damage, keys that were refused; 2 it could not be done.";

/// Looks into orch's stores, backs them up, restores, checks, compacts and copies them.
#[derive(Debug, Parser)]
#[command(name = "orch-store", version, after_long_help = PLACES)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) access: Access,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Get(Get),
    List(List),
    Watch(Watch),
    Backup(Backup),
    Restore(Restore),
    Verify(Verify),
    Compact(Compact),
    Copy(Copy),
}

impl Command {
    /// Whether any of its places is an etcd.
    pub(crate) fn has_etcd(&self) -> bool {
        let places = match self {
            Self::Get(arguments) => vec![&arguments.place],
            Self::List(arguments) => vec![&arguments.place],
            Self::Watch(arguments) => vec![&arguments.place],
            Self::Backup(arguments) => vec![&arguments.place],
            Self::Restore(arguments) => vec![&arguments.place],
            Self::Verify(arguments) => vec![&arguments.place],
            Self::Compact(arguments) => vec![&arguments.place],
            Self::Copy(arguments) => vec![&arguments.from, &arguments.to],
        };
        places.iter().any(|place| matches!(place, Place::Etcd(_)))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// One JSON object a line. What is not UTF-8 stands in base64, as `key_base64` and `value_base64`.
    Json,
}

/// Prints the value of one key.
///
/// The value goes to the standard output as it is. A key that does not exist ends with exit status 1.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_long_help = "\
Examples:
  orch-store get ./orch-data/store /registry/namespaces/default
  orch-store get ./orch-data/store /registry/namespaces/default --meta
  orch-store get ./orch-data/store /registry/namespaces/default --at 120"
)]
pub(crate) struct Get {
    /// A store's folder, or an etcd's endpoints.
    pub(crate) place: Place,
    /// The key.
    pub(crate) key: String,
    /// Print the revisions, version and size instead of the value.
    #[arg(long)]
    pub(crate) meta: bool,
    /// As it was at this revision.
    #[arg(long, value_name = "REVISION")]
    pub(crate) at: Option<Revision>,
    /// How to print.
    #[arg(short, long, value_enum, default_value = "text")]
    pub(crate) output: Format,
}

/// Lists keys.
///
/// The columns are the revision of the last write, how often the key was written since it was created, the size of
/// the value in bytes, and the key.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_long_help = "\
Examples:
  orch-store list ./orch-data/store
  orch-store list ./orch-data/store /registry/pods/ --keys
  orch-store list ./orch-data/store /registry/leases/ --at 4711 --limit 10
  orch-store list ./orch-data/store /registry/pods/ --values -o json | jq -r '.value | fromjson | .metadata.name'"
)]
pub(crate) struct List {
    /// A store's folder, or an etcd's endpoints.
    pub(crate) place: Place,
    /// Only keys that begin with this.
    #[arg(default_value = "")]
    pub(crate) prefix: String,
    /// Print only the keys.
    #[arg(long, conflicts_with = "values")]
    pub(crate) keys: bool,
    /// Print the values too.
    #[arg(long)]
    pub(crate) values: bool,
    /// As it was at this revision.
    #[arg(long, value_name = "REVISION")]
    pub(crate) at: Option<Revision>,
    /// At most so many keys.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// How to print.
    #[arg(short, long, value_enum, default_value = "text")]
    pub(crate) output: Format,
}

/// Prints each write as it happens, one a line, until it is interrupted.
///
/// A folder is looked at ten times a second and read again when its files have changed, which for a large store takes a
/// moment. What is written to a volatile prefix comes when it is on disk, about a second later.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_long_help = "\
Examples:
  orch-store watch ./orch-data/store /registry/pods/
  orch-store watch http://127.0.0.1:2379 /registry/ --from 4711 -o json"
)]
pub(crate) struct Watch {
    /// A store's folder, or an etcd's endpoints.
    pub(crate) place: Place,
    /// Only keys that begin with this.
    #[arg(default_value = "")]
    pub(crate) prefix: String,
    /// Begin after this revision, for instance that of a list, instead of now.
    #[arg(long, value_name = "REVISION")]
    pub(crate) from: Option<Revision>,
    /// Print the values too.
    #[arg(long)]
    pub(crate) values: bool,
    /// How to print.
    #[arg(short, long, value_enum, default_value = "text")]
    pub(crate) output: Format,
}

/// Writes the state of a store at one revision into a file.
///
/// The store may be in use: all that it had acknowledged when the backup began is in it, but for writes to a volatile
/// prefix that were not on disk yet. The file gets its name when it is whole and on disk; only its owner can read it, as it has
/// every secret in it. Times to live are kept.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_long_help = "\
Examples:
  orch-store backup ./orch-data/store monday.bak
  orch-store backup http://127.0.0.1:2379 pods.bak --prefix /registry/pods/
  orch-store verify monday.bak"
)]
pub(crate) struct Backup {
    /// A store's folder, or an etcd's endpoints.
    pub(crate) place: Place,
    /// The file to write.
    pub(crate) file: PathBuf,
    /// Only keys that begin with this.
    #[arg(long, default_value = "")]
    pub(crate) prefix: String,
    /// Replace the file if it exists.
    #[arg(long)]
    pub(crate) force: bool,
}

/// Fills an empty store from a backup.
///
/// The whole file is checked before anything is written.
///
/// Into a folder, keys keep their revisions and times to live, and all of them appear at once. The store then stands
/// above every revision of the backup by --bump-revision: what clients of the old store have seen after the backup was
/// taken is not told to them again as something else. They are told to list anew.
///
/// Into an etcd, and with --merge, keys and values are kept, and times to live as far as the backup has them. Keys get
/// new revisions: restart what has a cache of the old store, as it may take an older revision for a newer one when
/// the etcd stands below the backup.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_long_help = "\
Examples:
  orch-store restore monday.bak ./new-store
  orch-store restore monday.bak http://127.0.0.1:2379
  orch-store restore pods.bak ./orch-data/store --merge --overwrite"
)]
pub(crate) struct Restore {
    /// The backup.
    pub(crate) file: PathBuf,
    /// A store's folder, which is made if it does not exist, or an etcd's endpoints.
    pub(crate) place: Place,
    /// Also into a store that has keys. Those that are there with the same value are skipped, with another one refused.
    #[arg(long)]
    pub(crate) merge: bool,
    /// With --merge: replace what is there with another value.
    #[arg(long, requires = "merge")]
    pub(crate) overwrite: bool,
    /// How far above the backup's revision a folder's store begins. Default: 1000000000.
    #[arg(long, value_name = "N")]
    pub(crate) bump_revision: Option<u64>,
    /// How many writes are under way at a time, into an etcd and with --merge.
    #[arg(long, value_name = "N", default_value = "64", value_parser = at_least_one)]
    pub(crate) parallel: usize,
}

/// Checks everything in a store or a backup, and changes nothing.
///
/// Of a folder, every file's checksums; of a backup likewise; of an etcd, which checks its own files, that all keys can be
/// read. Damage ends with exit status 1 and says where it is.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_long_help = "\
Examples:
  orch-store verify ./orch-data/store
  orch-store verify monday.bak && echo good"
)]
pub(crate) struct Verify {
    /// A store's folder, a backup, or an etcd's endpoints.
    #[arg(value_name = "PLACE|FILE")]
    pub(crate) place: Place,
}

/// Forgets a store's history: earlier values, and events for watchers.
///
/// No key that exists is touched. A running cluster compacts by itself.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_long_help = "\
Examples:
  orch-store compact ./orch-data/store
  orch-store compact ./orch-data/store --keep 10000
  orch-store compact http://127.0.0.1:2379 --revision 4711"
)]
pub(crate) struct Compact {
    /// A store's folder, or an etcd's endpoints.
    pub(crate) place: Place,
    /// Forget what was before this revision. Default: the newest, that is all.
    #[arg(long, value_name = "N", conflicts_with = "keep")]
    pub(crate) revision: Option<Revision>,
    /// Keep the history of so many revisions.
    #[arg(long, value_name = "N")]
    pub(crate) keep: Option<u64>,
}

/// Copies keys and values from one store to another.
///
/// It may be repeated, and after an interruption goes on: keys that are there with the same value are skipped. Those
/// that are there with another value are refused and listed in the end. No key is deleted.
///
/// The state that is copied is that at one revision. Keys get new revisions; a folder's store then stands at or above FROM's.
/// Times to live are kept; leave out what is short-lived with --exclude.
///
/// Values are copied as they are. orch reads and writes JSON; a kube-apiserver does so with
/// --storage-media-type=application/json.
///
/// Flags for TLS and user apply to both, if both are etcds.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_long_help = "\
Examples:
  orch-store copy http://127.0.0.1:2379 ./orch-data/store --exclude /registry/events/
  orch-store copy ./orch-data/store http://127.0.0.1:2379 --prefix /registry/configmaps/"
)]
pub(crate) struct Copy {
    /// A store's folder, or an etcd's endpoints.
    pub(crate) from: Place,
    /// A store's folder, which is made if it does not exist, or an etcd's endpoints.
    pub(crate) to: Place,
    /// Only keys that begin with this.
    #[arg(long, default_value = "")]
    pub(crate) prefix: String,
    /// No keys that begin with this. May be given several times.
    #[arg(long, value_name = "PREFIX")]
    pub(crate) exclude: Vec<String>,
    /// Replace what is there with another value.
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// How many writes are under way at a time.
    #[arg(long, value_name = "N", default_value = "64", value_parser = at_least_one)]
    pub(crate) parallel: usize,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("a number from 1 on is needed".to_owned()),
        Ok(number) => Ok(number),
    }
}
