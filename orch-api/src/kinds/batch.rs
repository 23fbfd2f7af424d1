//! Jobs and CronJobs.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{CronJob, Job, JobSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use orch_core::field::ErrorList;

use super::check::{Check, Path};
use super::semantic::{bump_generation, same};
use super::stored::{status_apart, table};
use super::table::{self as cell, AGE, CONTAINERS, IMAGES, NAME, NONE, SELECTOR, number, since, text_column};
use super::text::{default_text, list, text};
use super::{pod_spec, selectors};
use crate::resource::ResourceInfo;
use crate::strategy::{Column, Kind};

/// The rules of jobs.
pub(super) struct Jobs;

impl Kind for Jobs {
    type Object = Job;

    fn info() -> ResourceInfo {
        ResourceInfo::namespaced("batch", "v1", "Job", "jobs")
            .categories(["all"])
            .status()
    }

    fn default(job: &mut Job) {
        default_spec(job.spec.get_or_insert_default());
    }

    fn prepare_for_create(job: &mut Job) {
        job.status = None;
        job.metadata.generation = Some(1);
        own_pods(job);
    }

    fn prepare_for_update(new: &mut Job, old: &Job) {
        new.status.clone_from(&old.status);
        let changed = !same(&new.spec, &old.spec);
        bump_generation(&mut new.metadata, &old.metadata, changed);
    }

    fn prepare_for_status_update(new: &mut Job, old: &Job) {
        new.spec.clone_from(&old.spec);
        new.metadata.generation = old.metadata.generation;
    }

    fn validate(job: &Job) -> ErrorList {
        Check::run(|check| {
            let empty = JobSpec::default();
            validate(check, job.spec.as_ref().unwrap_or(&empty), &Path::new("spec"));
        })
    }

    fn validate_update(new: &Job, old: &Job) -> ErrorList {
        let mut errors = Self::validate(new);
        errors.extend(Check::run(|check| {
            let (Some(new), Some(old)) = (&new.spec, &old.spec) else {
                return;
            };
            let path = Path::new("spec");
            check.immutable(&path.child("selector"), &new.selector, &old.selector);
            check.immutable(
                &path.child("completionMode"),
                &new.completion_mode,
                &old.completion_mode,
            );
            if old.suspend != Some(true) {
                check.immutable(&path.child("template"), &new.template, &old.template);
            }
            if text(&new.completion_mode) != "Indexed" {
                check.immutable(&path.child("completions"), &new.completions, &old.completions);
            }
        }));
        errors
    }

    fn selectable_fields(job: &Job) -> Vec<(&'static str, String)> {
        let succeeded = job
            .status
            .as_ref()
            .and_then(|status| status.succeeded)
            .unwrap_or(0);
        vec![("status.successful", succeeded.to_string())]
    }

    table!(
        [
            NAME,
            text_column("Status", "Whether the job runs, is complete or has failed."),
            text_column("Completions", "How many pods have succeeded, of how many."),
            text_column("Duration", "How long the job has run."),
            AGE,
            CONTAINERS,
            IMAGES,
            SELECTOR,
        ],
        |job, now| {
            let empty = JobSpec::default();
            let spec = job.spec.as_ref().unwrap_or(&empty);
            let status = job.status.clone().unwrap_or_default();
            let duration = match (&status.start_time, &status.completion_time) {
                (None, _) => String::new(),
                (Some(start), None) => since(Some(start), now),
                (Some(start), Some(end)) => since(Some(start), end.0),
            };
            let (containers, images) = cell::containers(Some(&spec.template));
            vec![
                cell::name(&job.metadata),
                job_status(job).into(),
                completions(spec, status.succeeded.unwrap_or(0)).into(),
                duration.into(),
                cell::age(&job.metadata, now),
                containers,
                images,
                selectors::show(spec.selector.as_ref()).into(),
            ]
        }
    );
}

fn default_spec(spec: &mut JobSpec) {
    if spec.completions.is_none() && spec.parallelism.is_none() {
        spec.completions = Some(1);
        spec.parallelism = Some(1);
    }
    spec.parallelism.get_or_insert(1);
    if spec.backoff_limit.is_none() {
        spec.backoff_limit = Some(if spec.backoff_limit_per_index.is_some() {
            i32::MAX
        } else {
            6
        });
    }
    default_text(&mut spec.completion_mode, "NonIndexed");
    spec.suspend.get_or_insert(false);
    if spec.pod_replacement_policy.is_none() {
        let failed = spec.pod_failure_policy.is_some();
        spec.pod_replacement_policy = Some(if failed { "Failed" } else { "TerminatingOrFailed" }.to_owned());
    }
    spec.manual_selector.get_or_insert(false);
    let template = &mut spec.template;
    pod_spec::default_template(template);
}

/// A job that brings no selector gets one by its own uid, which its pods carry as a label.
fn own_pods(job: &mut Job) {
    let (Some(spec), Some(uid)) = (&mut job.spec, job.metadata.uid.clone()) else {
        return;
    };
    if spec.manual_selector == Some(true) || spec.selector.is_some() {
        return;
    }
    let name = job.metadata.name.clone().unwrap_or_default();
    let labels = spec
        .template
        .metadata
        .get_or_insert_default()
        .labels
        .get_or_insert_default();
    for (key, value) in [
        ("batch.kubernetes.io/controller-uid", &uid),
        ("batch.kubernetes.io/job-name", &name),
        ("controller-uid", &uid),
        ("job-name", &name),
    ] {
        labels.insert(key.to_owned(), value.clone());
    }
    let own = BTreeMap::from([("batch.kubernetes.io/controller-uid".to_owned(), uid)]);
    spec.selector = Some(LabelSelector {
        match_labels: Some(own),
        match_expressions: None,
    });
}

fn validate(check: &mut Check, spec: &JobSpec, path: &Path) {
    let counts = [
        ("parallelism", spec.parallelism),
        ("completions", spec.completions),
        ("backoffLimit", spec.backoff_limit),
        ("ttlSecondsAfterFinished", spec.ttl_seconds_after_finished),
        ("backoffLimitPerIndex", spec.backoff_limit_per_index),
        ("maxFailedIndexes", spec.max_failed_indexes),
    ];
    super::workload::counts(check, &counts, path);
    check.not_negative(
        &path.child("activeDeadlineSeconds"),
        spec.active_deadline_seconds.unwrap_or(0),
    );
    let mode = text(&spec.completion_mode);
    check.one_of(&path.child("completionMode"), mode, &["Indexed", "NonIndexed"]);
    if mode == "Indexed" && spec.completions.is_none() {
        check.required(&path.child("completions"), "when completion mode is Indexed");
    }
    selectors::validate(check, spec.selector.as_ref(), &path.child("selector"));
    let path = path.child("template");
    pod_spec::validate_template(check, &spec.template, &path);
    let policy = spec
        .template
        .spec
        .as_ref()
        .map_or("", |spec| text(&spec.restart_policy));
    if policy == "Always" || policy.is_empty() {
        let at = path.child("spec").child("restartPolicy");
        check.required(&at, "valid values: \"OnFailure\", \"Never\"");
    }
}

fn job_status(job: &Job) -> &'static str {
    let status = job.status.clone().unwrap_or_default();
    let has = |sort: &str| {
        list(&status.conditions)
            .iter()
            .any(|one| one.type_ == sort && one.status == "True")
    };
    if has("Complete") {
        "Complete"
    } else if has("Failed") {
        "Failed"
    } else if job.metadata.deletion_timestamp.is_some() {
        "Terminating"
    } else if has("Suspended") {
        "Suspended"
    } else if has("FailureTarget") {
        "FailureTarget"
    } else if has("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

fn completions(spec: &JobSpec, succeeded: i32) -> String {
    match (spec.completions, spec.parallelism.unwrap_or(0)) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    }
}

/// The rules of CronJobs.
pub(super) struct CronJobs;

impl Kind for CronJobs {
    type Object = CronJob;

    fn info() -> ResourceInfo {
        ResourceInfo::namespaced("batch", "v1", "CronJob", "cronjobs")
            .short(["cj"])
            .categories(["all"])
            .status()
    }

    fn default(job: &mut CronJob) {
        let spec = &mut job.spec;
        default_text(&mut spec.concurrency_policy, "Allow");
        spec.suspend.get_or_insert(false);
        spec.successful_jobs_history_limit.get_or_insert(3);
        spec.failed_jobs_history_limit.get_or_insert(1);
        let template = spec.job_template.spec.get_or_insert_default();
        pod_spec::default_template(&mut template.template);
    }

    status_apart!();

    fn validate(job: &CronJob) -> ErrorList {
        Check::run(|check| {
            let spec = &job.spec;
            let path = Path::new("spec");
            check.present(&path.child("schedule"), &spec.schedule);
            let fields = spec.schedule.split_whitespace().count();
            if !spec.schedule.is_empty() && fields != 5 && !spec.schedule.starts_with('@') {
                let why = format!("expected exactly 5 fields, found {fields}: [{}]", spec.schedule);
                check.invalid(&path.child("schedule"), &spec.schedule, why);
            }
            let policy = text(&spec.concurrency_policy);
            check.one_of(
                &path.child("concurrencyPolicy"),
                policy,
                &["Allow", "Forbid", "Replace"],
            );
            let counts = [
                ("successfulJobsHistoryLimit", spec.successful_jobs_history_limit),
                ("failedJobsHistoryLimit", spec.failed_jobs_history_limit),
            ];
            super::workload::counts(check, &counts, &path);
            check.not_negative(
                &path.child("startingDeadlineSeconds"),
                spec.starting_deadline_seconds.unwrap_or(0),
            );
            if let Some(template) = &spec.job_template.spec {
                let path = path.child("jobTemplate").child("spec").child("template");
                pod_spec::validate_template(check, &template.template, &path);
            }
        })
    }

    table!(
        [
            NAME,
            text_column("Schedule", "When a job is made, in cron's notation."),
            text_column("Timezone", "The time zone of the schedule."),
            Column::new("Suspend", "boolean", "", "Whether no job is made for now."),
            number("Active", "How many jobs are running."),
            text_column("Last Schedule", "Time since the last job was made."),
            AGE,
            CONTAINERS,
            IMAGES,
            SELECTOR,
        ],
        |job, now| {
            let spec = &job.spec;
            let status = job.status.clone().unwrap_or_default();
            let last = status
                .last_schedule_time
                .as_ref()
                .map(|last| since(Some(last), now));
            let inner = spec.job_template.spec.as_ref();
            let (containers, images) = cell::containers(inner.map(|inner| &inner.template));
            // kubectl prints Go's spelling of a boolean.
            let suspended = if spec.suspend == Some(true) {
                "True"
            } else {
                "False"
            };
            vec![
                cell::name(&job.metadata),
                spec.schedule.clone().into(),
                spec.time_zone.as_deref().unwrap_or(NONE).into(),
                suspended.into(),
                list(&status.active).len().into(),
                last.unwrap_or_else(|| NONE.to_owned()).into(),
                cell::age(&job.metadata, now),
                containers,
                images,
                selectors::show(inner.and_then(|inner| inner.selector.as_ref())).into(),
            ]
        }
    );
}
