//! Probes and lifecycle hooks.

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::kinds::check::{Check, Path};
use crate::kinds::format;
use crate::kinds::text::{list, text};

/// Liveness and startup probes: one success is enough.
pub(super) fn liveness(check: &mut Check, probe: &core::Probe, path: &Path) {
    common(check, probe, path);
    if probe.success_threshold != Some(1) {
        check.invalid(
            &path.child("successThreshold"),
            probe.success_threshold.unwrap_or(0),
            "must be 1",
        );
    }
}

pub(super) fn readiness(check: &mut Check, probe: &core::Probe, path: &Path) {
    common(check, probe, path);
    if let Some(seconds) = probe.termination_grace_period_seconds {
        let why = "must not be set for readinessProbes";
        check.invalid(&path.child("terminationGracePeriodSeconds"), seconds, why);
    }
}

fn common(check: &mut Check, probe: &core::Probe, path: &Path) {
    let handler = Handler {
        exec: probe.exec.as_ref(),
        http_get: probe.http_get.as_ref(),
        tcp_socket: probe.tcp_socket.as_ref(),
        grpc: probe.grpc.as_ref(),
        sleep: None,
    };
    handler.validate(check, None, path);
    let counts = [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ];
    for (field, count) in counts {
        check.not_negative(&path.child(field), i64::from(count.unwrap_or(0)));
    }
    if let Some(seconds) = probe.termination_grace_period_seconds
        && seconds <= 0
    {
        check.invalid(
            &path.child("terminationGracePeriodSeconds"),
            seconds,
            "must be greater than 0",
        );
    }
}

pub(super) fn lifecycle(
    check: &mut Check,
    lifecycle: &core::Lifecycle,
    grace_period: Option<i64>,
    path: &Path,
) {
    for (field, hook) in [
        ("postStart", &lifecycle.post_start),
        ("preStop", &lifecycle.pre_stop),
    ] {
        let Some(hook) = hook else { continue };
        let handler = Handler {
            exec: hook.exec.as_ref(),
            http_get: hook.http_get.as_ref(),
            tcp_socket: hook.tcp_socket.as_ref(),
            grpc: None,
            sleep: hook.sleep.as_ref(),
        };
        handler.validate(check, grace_period, &path.child(field));
    }
}

struct Handler<'a> {
    exec: Option<&'a core::ExecAction>,
    http_get: Option<&'a core::HTTPGetAction>,
    tcp_socket: Option<&'a core::TCPSocketAction>,
    grpc: Option<&'a core::GRPCAction>,
    sleep: Option<&'a core::SleepAction>,
}

impl Handler<'_> {
    /// Exactly one handler; of several, the first is checked and the others are refused.
    fn validate(&self, check: &mut Check, grace_period: Option<i64>, path: &Path) {
        let given = [
            ("exec", self.exec.is_some()),
            ("httpGet", self.http_get.is_some()),
            ("tcpSocket", self.tcp_socket.is_some()),
            ("grpc", self.grpc.is_some()),
            ("sleep", self.sleep.is_some()),
        ];
        let mut given = given
            .into_iter()
            .filter(|(_, given)| *given)
            .map(|(field, _)| field);
        let Some(first) = given.next() else {
            check.required(path, "must specify a handler type");
            return;
        };
        self.one(check, first, grace_period, &path.child(first));
        for field in given {
            check.forbidden(&path.child(field), "may not specify more than 1 handler type");
        }
    }

    fn one(&self, check: &mut Check, field: &str, grace_period: Option<i64>, path: &Path) {
        if field == "exec" && self.exec.is_some_and(|exec| list(&exec.command).is_empty()) {
            check.required(&path.child("command"), "");
        } else if let (Some(http), "httpGet") = (self.http_get, field) {
            http_get(check, http, path);
        } else if let (Some(tcp), "tcpSocket") = (self.tcp_socket, field) {
            port(check, &tcp.port, &path.child("port"));
        } else if let (Some(grpc), "grpc") = (self.grpc, field) {
            check.port(&path.child("port"), grpc.port);
            if grpc.mode.is_some() {
                check.forbidden(&path.child("mode"), "is not supported by this server");
            }
        } else if let (Some(sleep), "sleep", Some(grace)) = (self.sleep, field, grace_period)
            && !(0..=grace).contains(&sleep.seconds)
        {
            let why = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
            check.invalid(path, sleep.seconds, why);
        }
    }
}

fn http_get(check: &mut Check, http: &core::HTTPGetAction, path: &Path) {
    const SCHEMES: [&str; 2] = ["HTTP", "HTTPS"];
    if text(&http.path).is_empty() {
        check.required(&path.child("path"), "");
    }
    port(check, &http.port, &path.child("port"));
    let scheme = text(&http.scheme);
    if !SCHEMES.contains(&scheme) {
        check.not_supported(&path.child("scheme"), scheme, &SCHEMES);
    }
    for header in list(&http.http_headers) {
        check.faults(
            &path.child("httpHeaders"),
            &header.name,
            format::http_header_name(&header.name),
        );
    }
    if http.protocol.is_some() {
        check.forbidden(&path.child("protocol"), "is not supported by this server");
    }
}

/// A port by number or by name.
pub(crate) fn port(check: &mut Check, port: &IntOrString, path: &Path) {
    match port {
        IntOrString::Int(number) => check.port(path, *number),
        IntOrString::String(name) => check.faults(path, name, format::port_name(name)),
    }
}
