//! A server from its configuration: engine and media threads, the gRPC port, the HTTP port, and their end.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use causerie_proto::{COMPATIBLE_SERVICES, FILE_DESCRIPTOR_SET, SERVICE};
use tokio::net::{TcpListener, lookup_host};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::access::keys::KeysError;
use crate::access::{Access, Origins};
use crate::admission::Admission;
use crate::catalog::Catalog;
use crate::config::Config;
use crate::engine_host::{EngineFactory, EngineHost};
use crate::grpc::{Conversations, MAX_PUBLIC, Public};
use crate::http::{self, Probes};
use crate::lag::{Lag, Meter};
use crate::live::Shared;
use crate::logging::LogContent;
use crate::media::{Detector, MediaPool};
use crate::metrics::Metrics;
use crate::port::{Port, Protocol};
use crate::reload::Reloading;
use crate::resumption::Resumption;
use crate::room::Room;
use crate::tls::{self, TlsError};
use crate::tools::Toolbox;
use crate::ws::Later;

/// How often the health service looks at the engine.
const HEALTH_PERIOD: Duration = Duration::from_secs(1);
/// How long connections may take to close once their streams have ended.
const CLOSING: Duration = Duration::from_secs(1);

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address} ({field}): {source}{}", hint(source))]
    Listen {
        /// The field of the configuration.
        field: &'static str,
        /// Its value.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// An address can be reached by everybody, and everybody could talk.
    #[error(
        "{field} {address} can be reached from other machines, and without keys whoever reaches it may talk. Make a key \
         with `causerie key new NAME --keys FILE` and start with `--keys FILE`; or listen on 127.0.0.1; or let anybody in \
         with `--allow-anyone`"
    )]
    Exposed {
        /// The field of the configuration.
        field: &'static str,
        /// Its value.
        address: String,
    },
    /// The keys cannot be read.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The engine was not loaded.
    #[error("engine {engine}: {message}")]
    Engine {
        /// Its name.
        engine: String,
        /// Why.
        message: String,
    },
    /// A thread or a service cannot be started.
    #[error("cannot start the {what}: {message}")]
    Start {
        /// What.
        what: &'static str,
        /// Why.
        message: String,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another program has this port: stop it, or choose another port (0 takes a free one)"
        }
        io::ErrorKind::PermissionDenied => "; choose a port above 1023",
        _ => "",
    }
}

/// A server.
pub struct Server;

/// A server that runs. Dropping it without [`Running::shutdown`] leaves its tasks to the runtime.
pub struct Running {
    /// Where gRPC is served.
    pub grpc_addr: SocketAddr,
    /// Where probes and metrics are served.
    pub http_addr: SocketAddr,
    /// Name of the engine.
    pub engine: String,
    /// Counts and latencies.
    pub metrics: Arc<Metrics>,
    _reloading: (Option<Reloading>, Option<Reloading>),
    host: EngineHost,
    pool: MediaPool,
    admission: Arc<Admission>,
    drain_for: Duration,
    drain: watch::Sender<Option<Instant>>,
    health: HealthReporter,
    health_task: JoinHandle<()>,
    lag_task: JoinHandle<()>,
    stop_grpc: oneshot::Sender<()>,
    grpc: JoinHandle<()>,
    stop_http: oneshot::Sender<()>,
    http: JoinHandle<()>,
}

impl Server {
    /// Takes the ports, loads the engine and serves. Returns when conversations can be held.
    ///
    /// # Errors
    /// A port is taken, or the engine cannot be loaded. Nothing is left running.
    pub async fn start(
        config: &Config,
        factory: EngineFactory,
        detector: Arc<dyn Detector>,
    ) -> Result<Running, ServeError> {
        let (access, reloading) = Access::load(config.keys.as_deref())?;
        let (certificates, renewing) = tls::load_and_watch(&config.tls)?.unzip();
        let everybody = access.has_keys() || config.allow_anyone;
        // A client certificate says who somebody is as well as a key does.
        let everybody_by_grpc = everybody || config.tls.client_ca.is_some();
        let (grpc_listener, grpc_addr) = listen("listen", &config.listen, everybody_by_grpc).await?;
        let (http_listener, http_addr) = listen("http", &config.http, everybody).await?;
        tell_access(access.has_keys(), config, [grpc_addr, http_addr]);
        let start = |what, error: &dyn std::fmt::Display| ServeError::Start { what, message: error.to_string() };
        let tools = Toolbox::start(&config.tools).await.map_err(|e| start("tools", &e))?;
        let resumption = Resumption::open(&config.resumption).map_err(|e| start("resumption of conversations", &e))?;
        let host = EngineHost::start_with(factory, tools).map_err(|e| start("engine thread", &e))?;
        let pool = MediaPool::start(detector).map_err(|e| start("media thread", &e))?;
        let metrics = Arc::new(Metrics::default());
        let (drain, draining) = watch::channel(None);

        let lag =
            Lag { engine: host.handle().lag().clone(), media: pool.media().lag().clone(), workers: Meter::default() };

        // Probes are answered while the engine loads, so that a supervisor sees the difference to a server that hangs.
        let probes = Probes {
            engine: host.handle(),
            metrics: metrics.clone(),
            max_conversations: config.max_conversations,
            lag: lag.clone(),
            access: access.clone(),
            drain: draining.clone(),
        };
        let (stop_http, http_stopped) = oneshot::channel();
        let conversations = Later::default();
        let router = http::router(probes.clone(), conversations.clone());
        let http = Port { listener: http_listener, protocol: Protocol::Http1, tls: certificates.clone(), router };
        let http = tokio::spawn(http.serve(http_stopped));

        let capabilities = match host.handle().ready().await {
            Ok(capabilities) => capabilities,
            Err(message) => {
                http.abort();
                off_runtime(move || drop((host, pool))).await;
                return Err(ServeError::Engine { engine: config.engine.clone(), message });
            }
        };
        let engine = capabilities.engine.clone();

        // Without keys whoever comes is served; who could come must not be decided by a name that anybody can own.
        let any_name = access.has_keys() || config.allow_anyone;
        let origins = Origins { allowed: config.origins.clone(), any_name };
        let max_lag = Duration::from_millis(config.max_lag_ms.into());
        let resumption = Arc::new(resumption);
        let admission = Arc::new(Admission::new(
            access,
            config.max_conversations,
            (lag.clone(), max_lag),
            resumption.clone(),
            metrics.clone(),
            draining.clone(),
        ));
        let shared = Arc::new(Shared {
            engine: host.handle(),
            media: pool.media(),
            catalog: Catalog::new(engine.clone(), config.aliases.iter().cloned()),
            timing: config.timing(),
            echo_gate: config.echo_gate,
            setup_timeout: Duration::from_secs(config.setup_timeout_seconds.into()),
            resumption,
            metrics: metrics.clone(),
            origins,
            admission: admission.clone(),
            log_content: LogContent(config.log_content),
            drain: draining,
            run: run_name(),
        });
        let _ = conversations.set(shared.clone());
        let lag_task = tokio::spawn(lag.watch_workers());
        let (health, health_service) = tonic_health::server::health_reporter();
        report(&health, probes.ready().is_ok()).await;
        let health_task = tokio::spawn(watch_health(health.clone(), probes));
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        // Older tools ask for the older version.
        let reflection_alpha = reflection().build_v1alpha().map_err(|e| start("reflection service", &e))?;
        let reflection = reflection().build_v1().map_err(|e| start("reflection service", &e))?;

        let (stop_grpc, grpc_stopped) = oneshot::channel();
        let public = Room::new(MAX_PUBLIC);
        let router = Conversations::new(shared)
            .routes()
            .add_service(Public::new(health_service, &public))
            .add_service(Public::new(reflection, &public))
            .add_service(Public::new(reflection_alpha, &public))
            .prepare()
            .into_axum_router();
        let grpc = Port { listener: grpc_listener, protocol: Protocol::Http2, tls: certificates, router };
        let grpc = tokio::spawn(grpc.serve(grpc_stopped));
        Ok(Running {
            grpc_addr,
            http_addr,
            engine,
            metrics,
            _reloading: (reloading, renewing),
            host,
            pool,
            admission,
            drain_for: Duration::from_secs(config.drain_seconds.into()),
            drain,
            health,
            health_task,
            lag_task,
            stop_grpc,
            grpc,
            stop_http,
            http,
        })
    }
}

impl Running {
    /// Takes no more conversations, lets the turns that are owed be finished within the drain time, and ends.
    /// Whether all conversations ended in time.
    pub async fn shutdown(self) -> bool {
        let deadline = Instant::now() + self.drain_for;
        self.drain.send_replace(Some(deadline));
        self.health_task.abort();
        self.lag_task.abort();
        report(&self.health, false).await;
        // No more connections; those that are open are told to go, and stay while they have streams.
        let _ = self.stop_grpc.send(());
        // A moment more than the conversations have: they end themselves at the deadline, with a word to the client.
        let drained = timeout_at(deadline + CLOSING, self.admission.emptied()).await.is_ok();
        let mut grpc = self.grpc;
        if timeout(CLOSING, &mut grpc).await.is_err() {
            // Clients that keep an idle connection open do not keep the server.
            grpc.abort();
        }
        let _ = self.stop_http.send(());
        let mut http = self.http;
        if timeout(CLOSING, &mut http).await.is_err() {
            http.abort();
        }
        off_runtime(move || drop((self.host, self.pool))).await;
        drained
    }
}

/// Joining a thread blocks, which a worker of the runtime must not.
async fn off_runtime(work: impl FnOnce() + Send + 'static) {
    let _ = tokio::task::spawn_blocking(work).await;
}

/// Takes a port. Unless `everybody` may reach it, the address is one of this machine alone.
async fn listen(field: &'static str, address: &str, everybody: bool) -> Result<(TcpListener, SocketAddr), ServeError> {
    let failed = |source| ServeError::Listen { field, address: address.to_owned(), source };
    let addresses: Vec<SocketAddr> = lookup_host(address).await.map_err(failed)?.collect();
    if !everybody && !addresses.iter().all(|address| is_local(address.ip())) {
        return Err(ServeError::Exposed { field, address: address.to_owned() });
    }
    // What was looked at is what is bound.
    let listener = TcpListener::bind(&addresses[..]).await.map_err(failed)?;
    let local = listener.local_addr().map_err(failed)?;
    Ok((listener, local))
}

/// Says who can reach the server.
fn tell_access(keys: bool, config: &Config, addresses: [SocketAddr; 2]) {
    let local = addresses.iter().all(|address| is_local(address.ip()));
    match (keys, local) {
        (true, false) if config.tls.cert.is_none() => {
            tracing::warn!("keys and speech cross the network in the clear: there is no certificate (--tls-cert)");
        }
        (true, _) => {}
        (false, true) => tracing::info!("no API keys: only programs on this machine can connect, with any key or none"),
        (false, false) if !config.allow_anyone => tracing::info!("gRPC asks its clients for certificates"),
        (false, false) => tracing::warn!("no API keys: whoever reaches this server may talk"),
    }
}

/// Whether only this machine can reach an address.
fn is_local(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

/// Tells the runs of a server apart in the names of conversations.
fn run_name() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("{:x}", since.as_millis())
}

async fn watch_health(health: HealthReporter, probes: Probes) {
    let mut before = None;
    loop {
        let ready = probes.ready().is_ok();
        if before != Some(ready) {
            report(&health, ready).await;
            before = Some(ready);
        }
        tokio::time::sleep(HEALTH_PERIOD).await;
    }
}

async fn report(health: &HealthReporter, ready: bool) {
    let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
    for service in [""].into_iter().chain([SERVICE]).chain(COMPATIBLE_SERVICES) {
        health.set_service_status(service, status).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_local() {
        for (ip, local) in [
            ("127.0.0.1", true),
            ("127.8.9.10", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("0.0.0.0", false),
            ("::", false),
            ("::ffff:0.0.0.0", false),
            ("10.0.0.1", false),
            ("192.168.1.1", false),
            ("169.254.0.1", false),
            ("fe80::1", false),
            ("128.0.0.1", false),
        ] {
            assert_eq!(is_local(ip.parse().expect(ip)), local, "{ip}");
        }
    }
}
