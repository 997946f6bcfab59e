//! Where it is said how jobs travel: the variables that OpenTelemetry has for it (specification, "OTLP exporter" and "Environment variables"), and what is sent
//! there. Without the feature `otlp` only that it is wanted is known, and said.

#[cfg(feature = "otlp")]
mod send;

use master::travel::Spans;

/// Spans on their way out, where anybody wants them.
#[derive(Debug, Default)]
pub struct Traces {
    #[cfg(feature = "otlp")]
    sending: Option<send::Sending>,
    spans: Option<Spans>,
}

impl Traces {
    /// Sends from now on, on the runtime that this is called in, as the environment says; nothing where it names no endpoint.
    ///
    /// # Errors
    /// What in the environment is wrong.
    pub fn start() -> anyhow::Result<Self> {
        if !is_wanted(&|name| std::env::var(name).ok()) {
            return Ok(Self::default());
        }
        #[cfg(feature = "otlp")]
        {
            let (spans, sending) = send::start()?;
            Ok(Self { sending: Some(sending), spans: Some(spans) })
        }
        #[cfg(not(feature = "otlp"))]
        {
            tracing::warn!("no traces are sent: this build is without them (cargo build --features otlp)");
            Ok(Self::default())
        }
    }

    /// Where spans are put.
    pub fn spans(&self) -> Option<Spans> {
        self.spans.clone()
    }

    /// Sends what is left, within a few seconds.
    pub async fn finish(self) {
        #[cfg(feature = "otlp")]
        if let Some(sending) = self.sending {
            sending.finish().await;
        }
    }
}

/// True where the environment names an endpoint, and does not say that nothing is to be sent.
fn is_wanted(variable: &impl Fn(&str) -> Option<String>) -> bool {
    let says = |name: &str, text: &str| variable(name).is_some_and(|said| said.eq_ignore_ascii_case(text));
    let is_set = |name: &str| variable(name).is_some_and(|said| !said.is_empty());
    let is_off = says("OTEL_SDK_DISABLED", "true") || says("OTEL_TRACES_EXPORTER", "none") || says("OTEL_TRACES_SAMPLER", "always_off");
    !is_off && (is_set("OTEL_EXPORTER_OTLP_ENDPOINT") || is_set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_sent_unless_the_environment_names_where() {
        let check = |said: &[(&str, &str)], expected: bool| {
            let variable = |name: &str| said.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
            assert_eq!(is_wanted(&variable), expected, "{said:?}");
        };
        let there = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");
        check(&[], false);
        check(&[("OTEL_SERVICE_NAME", "skep")], false);
        check(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")], false);
        check(&[there], true);
        check(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:4318/v1/traces")], true);
        check(&[there, ("OTEL_SDK_DISABLED", "True")], false);
        check(&[there, ("OTEL_TRACES_EXPORTER", "none")], false);
        check(&[there, ("OTEL_TRACES_SAMPLER", "always_off")], false);
    }
}
