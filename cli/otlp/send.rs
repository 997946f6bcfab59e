//! Spans as OpenTelemetry has them, in batches, over OTLP/HTTP: the encoding, the variables for where and how, and trying again are `opentelemetry-otlp`'s. Ids and
//! times are ours, so its tracer is not needed, nor anything of it on the way of a job.

use anyhow::Context;
use master::travel::{Span, Spans, Value};
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

/// Most spans of one request, and how long the first of them waits for others (OpenTelemetry, "Batch span processor").
const BATCH_MAX: usize = 512;
const DELAY_MS: u64 = 5_000;
/// The longest that the end of the process waits for what is left.
const FINISH: Duration = Duration::from_secs(5);

/// What sends them.
#[derive(Debug)]
pub struct Sending {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// Sends from now on.
///
/// # Errors
/// What in the environment is wrong.
pub fn start() -> anyhow::Result<(Spans, Sending)> {
    protocol::link::install_crypto();
    let mut exporter = SpanExporter::builder().with_http().build().context("OTEL_EXPORTER_OTLP_…")?;
    exporter.set_resource(&resource());
    let delay_ms = number("OTEL_BSP_SCHEDULE_DELAY")?.unwrap_or(DELAY_MS);
    let share = share(std::env::var("OTEL_TRACES_SAMPLER").ok().as_deref(), std::env::var("OTEL_TRACES_SAMPLER_ARG").ok().as_deref())?;
    let (spans, receiver) = Spans::new();
    let (stop, stopped) = oneshot::channel();
    let sender = Sender { exporter, receiver, spans: spans.clone(), lost: 0, share, delay: Duration::from_millis(delay_ms) };
    Ok((spans, Sending { stop, task: tokio::spawn(sender.run(stopped)) }))
}

impl Sending {
    /// Sends what is left.
    pub async fn finish(self) {
        let _ = self.stop.send(());
        let _ = timeout(FINISH, self.task).await;
    }
}

struct Sender {
    exporter: SpanExporter,
    receiver: mpsc::Receiver<Span>,
    spans: Spans,
    /// Of those that were left out, how many it has said.
    lost: u64,
    /// Traces whose id, of 63 bits, is below it are sent.
    share: u64,
    delay: Duration,
}

impl Sender {
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        let mut batch = Vec::new();
        loop {
            let is_last = tokio::select! {
                _ = &mut stopped => true,
                1.. = self.receiver.recv_many(&mut batch, BATCH_MAX) => self.gather(&mut batch, &mut stopped).await,
                else => true,
            };
            if is_last {
                while let Ok(span) = self.receiver.try_recv() {
                    batch.push(span);
                }
            }
            for part in batch.chunks(BATCH_MAX) {
                self.send(part).await;
            }
            batch.clear();
            if is_last {
                return;
            }
        }
    }

    /// Waits for others, so that a batch is worth a request; true: it is the last one.
    async fn gather(&mut self, batch: &mut Vec<Span>, stopped: &mut oneshot::Receiver<()>) -> bool {
        let until = Instant::now() + self.delay;
        while batch.len() < BATCH_MAX {
            let room = BATCH_MAX - batch.len();
            tokio::select! {
                _ = &mut *stopped => return true,
                more = timeout_at(until, self.receiver.recv_many(batch, room)) => match more {
                    Ok(1..) => {}
                    Ok(0) => return true,
                    Err(_) => return false,
                },
            }
        }
        false
    }

    async fn send(&mut self, spans: &[Span]) {
        let batch: Vec<SpanData> = spans.iter().filter(|span| is_within(span, self.share)).map(data).collect();
        let n_spans = batch.len();
        if n_spans > 0
            && let Err(error) = self.exporter.export(batch).await
        {
            tracing::warn!(reason = %error, n_spans, "spans were not taken, and are left out");
        }
        let lost = self.spans.lost();
        if lost > self.lost {
            tracing::warn!(n_spans = lost - self.lost, "spans came faster than they were sent, and are left out");
            self.lost = lost;
        }
    }
}

/// What says all of them: its name is `skep`, unless the environment has another.
fn resource() -> Resource {
    let named = std::env::var("OTEL_SERVICE_NAME").is_ok_and(|name| !name.is_empty())
        || std::env::var("OTEL_RESOURCE_ATTRIBUTES").is_ok_and(|all| all.contains("service.name="));
    let resource = Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    if named { resource.build() } else { resource.with_service_name("skep").build() }
}

/// Which traces are sent, as the bound of 63 bits of their ids (OpenTelemetry, "TraceIdRatioBased").
fn share(sampler: Option<&str>, argument: Option<&str>) -> anyhow::Result<u64> {
    match sampler.unwrap_or("parentbased_always_on") {
        "" | "always_on" | "parentbased_always_on" => Ok(1 << 63),
        "traceidratio" | "parentbased_traceidratio" => {
            let ratio: f64 = argument.unwrap_or("1").parse().context("OTEL_TRACES_SAMPLER_ARG")?;
            anyhow::ensure!((0.0..=1.0).contains(&ratio), "OTEL_TRACES_SAMPLER_ARG={ratio}: expected 0 to 1");
            Ok((ratio * (1_u64 << 63) as f64) as u64)
        }
        other => anyhow::bail!("OTEL_TRACES_SAMPLER={other}: expected always_on, always_off or traceidratio"),
    }
}

fn is_within(span: &Span, share: u64) -> bool {
    let low = span.trace.last_chunk().map_or(0, |low| u64::from_be_bytes(*low));
    low >> 1 < share
}

fn number(name: &str) -> anyhow::Result<Option<u64>> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty());
    text.map(|text| text.parse().with_context(|| format!("{name}={text}: expected a number of milliseconds"))).transpose()
}

fn data(span: &Span) -> SpanData {
    let context =
        SpanContext::new(TraceId::from_bytes(span.trace), SpanId::from_bytes(span.id), TraceFlags::SAMPLED, false, TraceState::default());
    let attribute = |(name, value): &(&'static str, Value)| match value {
        Value::Text(text) => KeyValue::new(*name, text.clone()),
        Value::Number(number) => KeyValue::new(*name, i64::try_from(*number).unwrap_or(i64::MAX)),
    };
    SpanData {
        span_context: context,
        parent_span_id: span.parent.map_or(SpanId::INVALID, SpanId::from_bytes),
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: span.name.into(),
        start_time: moment(span.began_ns),
        end_time: moment(span.ended_ns),
        attributes: span.attributes.iter().map(attribute).collect(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: span.failed.map_or(Status::Unset, Status::error),
        instrumentation_scope: InstrumentationScope::builder("skep").with_version(env!("CARGO_PKG_VERSION")).build(),
    }
}

fn moment(ns: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sampler_takes_a_share_of_the_traces() {
        assert_eq!(share(None, None).unwrap(), 1 << 63);
        assert_eq!(share(Some("traceidratio"), Some("0")).unwrap(), 0);
        assert_eq!(share(Some("parentbased_traceidratio"), Some("0.25")).unwrap(), 1 << 61);
        for wrong in [("traceidratio", "2"), ("traceidratio", "x"), ("jaeger_remote", "")] {
            assert!(share(Some(wrong.0), Some(wrong.1)).is_err(), "{wrong:?}");
        }
        let span = |first: u8| Span {
            trace: [0, 0, 0, 0, 0, 0, 0, 0, first, 0, 0, 0, 0, 0, 0, 0],
            id: [1; 8],
            parent: None,
            name: "job",
            began_ns: 0,
            ended_ns: 1,
            attributes: vec![],
            failed: None,
        };
        assert!(is_within(&span(0x3f), 1 << 61) && !is_within(&span(0x40), 1 << 61) && is_within(&span(0xff), 1 << 63));
    }
}
