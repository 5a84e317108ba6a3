//! Spans go to an OpenTelemetry collector: OTLP over HTTP, as protobuf.
//!
//! What the library says of its spans is exported as it is: names, fields, parents. A span whose
//! request names a trace in `traceparent` is part of that trace, and is left out if its caller has
//! not sampled it. Spans that the collector does not take are lost; nothing else waits for it.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use gapless::net::{RequestError, Requester, trace};
use http_body_util::Full;
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, Response, Uri};
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState, TracerProvider as _,
};
use opentelemetry::{Context as TraceContext, KeyValue};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::runtime::Handle;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::failure::Failure;
use crate::logging::SpanLayer;
use crate::tls::ServerConnector;
use crate::url::ServerUrl;

/// Where a collector takes spans.
const PATH: &str = "/v1/traces";

/// How long an export may take.
const EXPORT: Duration = Duration::from_secs(10);

/// How long the last export may take, when the server has ended.
const LAST_EXPORT: Duration = Duration::from_secs(5);

/// What the spans are of, unless the environment says it in `OTEL_SERVICE_NAME`.
const SERVICE_NAME: &str = "gapless";

/// Exports spans, a batch every few seconds.
pub(crate) struct Exporter {
    provider: SdkTracerProvider,
}

impl Exporter {
    /// Exports to a collector; over `https`, to one whose certificate the system trusts.
    pub(crate) fn start(collector: &ServerUrl, runtime: Handle) -> Result<Self, Failure> {
        let client = Client {
            connector: Arc::new(ServerConnector::new(collector, None)?),
            authority: HeaderValue::from_str(&collector.authority())
                .map_err(|error| Failure::usage(format!("`{collector}` is no server: {error}")))?,
            runtime,
            fails: AtomicBool::new(false),
        };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_endpoint(format!("{collector}{PATH}"))
            .with_timeout(EXPORT)
            .build()
            .map_err(|error| Failure::new(format!("spans cannot be exported: {error}")))?;
        let resource = Resource::builder();
        let resource = match std::env::var_os("OTEL_SERVICE_NAME") {
            Some(_) => resource,
            None => resource.with_service_name(SERVICE_NAME),
        };
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let provider = SdkTracerProvider::builder()
            .with_resource(resource.with_attribute(version).build())
            .with_batch_exporter(exporter)
            .build();
        Ok(Self { provider })
    }

    /// What listens to the spans.
    pub(crate) fn layer(&self) -> SpanLayer {
        let spans = tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("gapless"))
            // A connection is served by several threads in turn.
            .with_context_activation(false)
            .with_tracked_inactivity(false)
            .with_location(false)
            .with_threads(false)
            .with_target(false);
        let ours = Targets::new().with_target(trace::TARGET, Level::INFO);
        InTraceOfCaller(spans).with_filter(ours.with_default(LevelFilter::OFF)).boxed()
    }

    /// Exports what has not been exported yet, and ends.
    pub(crate) fn finish(self) {
        if let Err(error) = self.provider.shutdown_with_timeout(LAST_EXPORT) {
            tracing::warn!(%error, "the last spans were not exported");
        }
    }
}

// ---- whose trace a span is part of ----------------------------------------------------------------

/// Begins spans in the trace that their `traceparent` names, if they have no parent here.
struct InTraceOfCaller<L>(L);

impl<S, L> Layer<S> for InTraceOfCaller<L>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    L: Layer<S>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut caller = Caller(None);
        attributes.record(&mut caller);
        let caller = caller.0.map(|it| TraceContext::new().with_remote_span_context(it).attach());
        self.0.on_new_span(attributes, id, context);
        drop(caller);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        self.0.on_record(id, values, context);
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        self.0.on_close(id, context);
    }
}

/// The span that a `traceparent` names.
struct Caller(Option<SpanContext>);

impl Visit for Caller {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "traceparent" {
            self.0 = span_of(value);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

/// What [`trace::traceparent`] has taken.
fn span_of(traceparent: &str) -> Option<SpanContext> {
    let mut parts = traceparent.split('-').skip(1);
    let trace = TraceId::from_hex(parts.next()?).ok()?;
    let span = SpanId::from_hex(parts.next()?).ok()?;
    let flags = u8::from_str_radix(parts.next()?, 16).ok()?;
    // Only the lowest bit has a meaning in version 00.
    let flags = TraceFlags::new(flags) & TraceFlags::SAMPLED;
    Some(SpanContext::new(trace, span, flags, true, TraceState::NONE))
}

// ---- the way to the collector ---------------------------------------------------------------------

/// Sends a request over a connection of its own.
struct Client {
    connector: Arc<ServerConnector>,
    authority: HeaderValue,
    /// The exporter has a thread, and no runtime.
    runtime: Handle,
    /// The last request was in vain, which has been logged.
    fails: AtomicBool,
}

impl Client {
    async fn send(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        *request.uri_mut() = Uri::from_static(PATH);
        request.headers_mut().insert(HOST, self.authority.clone());
        let connector = self.connector.clone();
        let sending = self.runtime.spawn(async move {
            Requester::new(EXPORT).send(&*connector, request.map(Full::new)).await
        });
        let (status, body) = match sending.await? {
            Ok(answer) => answer,
            Err(RequestError::NotSent(problem) | RequestError::Unknown(problem)) => {
                return Err(problem.into());
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        Ok(response)
    }

    /// Says it when it begins to fail, and when it no longer does.
    fn tell(&self, sent: &Result<Response<Bytes>, HttpError>) {
        let problem = match sent {
            Ok(response) if response.status().is_success() => None,
            Ok(response) => Some(format!("status {}", response.status().as_u16())),
            Err(error) => Some(error.to_string()),
        };
        let failed = self.fails.swap(problem.is_some(), Ordering::Relaxed);
        match problem {
            Some(problem) if !failed => tracing::warn!(%problem, "spans are not exported"),
            None if failed => tracing::info!("spans are exported again"),
            Some(_) | None => {}
        }
    }
}

impl HttpClient for Client {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let sent = self.send(request).await;
            self.tell(&sent);
            sent
        })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("authority", &self.authority).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_names_a_span_and_whether_it_is_sampled() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        for (flags, sampled) in [("01", true), ("00", false), ("03", true)] {
            let span = span_of(&format!("00-{trace}-00f067aa0ba902b7-{flags}")).expect("it is one");
            assert_eq!(span.trace_id().to_string(), trace);
            assert_eq!(span.span_id().to_string(), "00f067aa0ba902b7");
            assert_eq!(span.is_sampled(), sampled, "{flags}");
            assert!(span.is_remote());
        }
        assert_eq!(span_of("00-nothing"), None);
    }
}
