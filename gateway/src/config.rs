//! What an operator decides: a TOML file, the environment and flags, in this order of rising weight.
//!
//! Parsed and checked once; past [`Config::load`] every value is usable. A file looks like this, with the defaults:
//!
//! ```toml
//! listen = "127.0.0.1:50051"
//! http = "127.0.0.1:8080"
//! engine = "cascade"
//! max_conversations = 8
//! max_lag_ms = 1000            # a server that is later than this takes no other conversation
//! allow_anyone = false         # without keys, be reached from other machines
//! log_content = false          # what people say
//! origins = []                 # pages from elsewhere that may open a WebSocket: "https://example.org"
//! aliases = []                 # further names under which clients may ask for the model
//! drain_seconds = 10
//! setup_timeout_seconds = 30
//! # idle_timeout_seconds = 600 # close conversations in which nothing happens; without, never
//! smart_turn = true            # wait longer after a sentence that does not sound finished
//! echo_gate = true             # what the microphone hears of the agent's own voice is not speech
//!
//! # keys = "keys.toml"         # whoever wants to talk needs a key of this file
//!
//! # [tls]                      # PEM files; both ports are encrypted then
//! # cert = "cert.pem"
//! # key = "key.pem"
//! # client_ca = "ca.pem"       # gRPC is served only to clients with a certificate of this authority
//!
//! [timing]                     # milliseconds
//! start_confirm = 96
//! preroll = 300
//! hangover = 500
//! hangover_unfinished = 1200
//! hangover_low = 800
//! barge_in = 512
//! piece = 40
//! lead = 200
//!
//! [tools]                      # functions that the server runs itself
//! builtin = []                 # of "clock" and "calculator"
//! timeout_seconds = 60         # after which a call has failed, whoever runs it
//! # google_search = "search"   # which of them answers for the tool of this name; only clients that ask get it
//!
//! # [[tools.mcp]]              # a server of the Model Context Protocol, started with this one
//! # command = "my-mcp-server"
//! # args = []
//!
//! # [[tools.mcp]]              # another that is reached by streamable HTTP
//! # url = "http://127.0.0.1:9000/mcp"
//! # name = "shop"              # in logs and metrics
//! # token_env = "SHOP_TOKEN"   # the variable of the environment that has its bearer token
//!
//! [resumption]                 # of conversations whose stream has ended
//! seconds = 7200               # how long a handle is good for
//! # file = "conversations.db"  # where they are kept; without, in memory, until the server ends
//! # key_file = "handles.key"   # 32 bytes or more that sign handles; without, the server makes its own
//!
//! [cascade]
//! recognizer = "base"
//! context = 8192
//!
//! [omni]                       # and `model`, the checkpoint's folder
//! context = 4096               # tokens of a prompt and its reply
//! device = "cpu"               # or a GPU: "cuda", or "cuda:1" for the second
//! weights = "f32"              # or "bf16", "fp8", "int4"; on a GPU bf16 it is
//! kv = "f32"                   # keys and values; or "bf16", "fp8"; on a GPU likewise
//! # memory_gb = 141            # what does not fit into so many billions of bytes is refused before it is loaded
//! # window = 32768             # the thinker sees the latest so many tokens, and the first `sinks` (16)
//! # yarn = 4.0                 # reach so many times the checkpoint's positions
//! # audio_block = 8            # seconds of speech that are heard together; as the checkpoint says
//! loudest = "so far"           # what speech is scaled by; or "utterance", as in the reference, heard when it is over; or
//!                              # always the same, as the decimal logarithm of a power: 1.5
//! ```

use std::path::{Path, PathBuf};
use std::time::Duration;

use causerie_model::omni::Placement;
use causerie_model::omni::engine::{Device, Loudest, Options, Visible};
use causerie_model::omni::kv::KvType;
use causerie_session::Timing;
use clap::Args;
use serde::Deserialize;

use crate::tls::TlsConfig;
use crate::tools::BUILTIN;

/// Options of `causerie serve`. Each overrides its field of the configuration file.
#[derive(Args, Clone, Debug, Default)]
pub struct ServeArgs {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE", env = "CAUSERIE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Address for gRPC; port 0 takes a free one [default: 127.0.0.1:50051].
    #[arg(long, value_name = "ADDR", env = "CAUSERIE_LISTEN")]
    pub listen: Option<String>,
    /// Address for health, readiness and metrics; port 0 takes a free one [default: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDR", env = "CAUSERIE_HTTP")]
    pub http: Option<String>,
    /// File of API keys, made by `causerie key new`; clients need one of them [default: no keys, and only this machine].
    #[arg(long, value_name = "FILE", env = "CAUSERIE_KEYS")]
    pub keys: Option<PathBuf>,
    /// Let anybody who can reach the server talk, without keys.
    #[arg(long, env = "CAUSERIE_ALLOW_ANYONE")]
    pub allow_anyone: bool,
    /// Certificate of the server (PEM), for TLS on both ports; `causerie cert` makes one for development.
    #[arg(long, value_name = "FILE", env = "CAUSERIE_TLS_CERT")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, value_name = "FILE", env = "CAUSERIE_TLS_KEY")]
    pub tls_key: Option<PathBuf>,
    /// Serve gRPC only to clients with a certificate of this authority (PEM).
    #[arg(long, value_name = "FILE", env = "CAUSERIE_TLS_CLIENT_CA")]
    pub tls_client_ca: Option<PathBuf>,
    /// Let what people say, and what libraries print of it, into the log.
    #[arg(long, env = "CAUSERIE_LOG_CONTENT")]
    pub log_content: bool,
    /// What thinks and speaks [default: cascade].
    #[arg(long, value_name = "NAME", env = "CAUSERIE_ENGINE")]
    pub engine: Option<String>,
    /// Folder of the models [default: causerie in the user's cache folder].
    #[arg(long, value_name = "DIR", env = "CAUSERIE_MODELS")]
    pub models: Option<PathBuf>,
    /// A GGUF file to think with, instead of the default model.
    #[arg(long, value_name = "FILE", env = "CAUSERIE_LM")]
    pub lm: Option<PathBuf>,
    /// A folder with a Qwen3-Omni checkpoint, for `--engine omni`.
    #[arg(long, value_name = "DIR", env = "CAUSERIE_MODEL")]
    pub model: Option<PathBuf>,
    /// What the omni engine computes on: `cpu`, or a GPU, `cuda` or `cuda:N` [default: cpu].
    #[arg(long, value_name = "NAME", env = "CAUSERIE_DEVICE")]
    pub device: Option<Device>,
    /// Threads that compute [default: all cores].
    #[arg(long, value_name = "N", env = "CAUSERIE_THREADS")]
    pub threads: Option<usize>,
}

/// A server's configuration.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address for gRPC.
    pub listen: String,
    /// Address for health, readiness and metrics.
    pub http: String,
    /// File of API keys ([`crate::access::keys`]); `None` for no keys.
    pub keys: Option<PathBuf>,
    /// Whether a server without keys may be reached from other machines.
    pub allow_anyone: bool,
    /// Pages that may open a WebSocket beside those of this server, as `https://example.org`.
    pub origins: Vec<String>,
    /// What thinks and speaks.
    pub engine: String,
    /// Folder of the models; `None` for the user's cache folder.
    pub models: Option<PathBuf>,
    /// Further names under which clients may ask for the model.
    pub aliases: Vec<String>,
    /// Most conversations at once.
    pub max_conversations: usize,
    /// How late the engine, the media thread or tokio's workers may be while another conversation is taken.
    pub max_lag_ms: u32,
    /// Whether what people say may be logged.
    pub log_content: bool,
    /// How long a shutdown waits for the turns that are owed.
    pub drain_seconds: u32,
    /// How long a client may take to send its setup.
    pub setup_timeout_seconds: u32,
    /// After how much silence a conversation is closed; `None` for never. Its client may ask for less.
    pub idle_timeout_seconds: Option<u32>,
    /// Whether pauses are judged by their sound. A server without waits for [`Timing::hangover`] alone.
    pub smart_turn: bool,
    /// Whether the agent's own voice in the input is told from its user's. To be turned off where every client has an
    /// echo canceller and quiet speech into a reply matters.
    pub echo_gate: bool,
    /// When things happen in a conversation.
    pub timing: TimingConfig,
    /// Encryption.
    pub tls: TlsConfig,
    /// Functions that the model may call.
    pub tools: ToolsConfig,
    /// Resumption of conversations.
    pub resumption: ResumptionConfig,
    /// The cascade engine.
    pub cascade: CascadeConfig,
    /// The omni engine.
    pub omni: OmniConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:50051".into(),
            http: "127.0.0.1:8080".into(),
            keys: None,
            allow_anyone: false,
            origins: Vec::new(),
            engine: ENGINES[0].into(),
            models: None,
            aliases: Vec::new(),
            max_conversations: 8,
            max_lag_ms: 1_000,
            log_content: false,
            drain_seconds: 10,
            setup_timeout_seconds: 30,
            idle_timeout_seconds: None,
            smart_turn: true,
            echo_gate: true,
            timing: TimingConfig::default(),
            tls: TlsConfig::default(),
            tools: ToolsConfig::default(),
            resumption: ResumptionConfig::default(),
            cascade: CascadeConfig::default(),
            omni: OmniConfig::default(),
        }
    }
}

/// Names in [`Config::engine`]; the first is the default.
pub const ENGINES: [&str; 2] = ["cascade", "omni"];

/// Times of a conversation, in milliseconds; `None` is the default of [`Timing`].
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct TimingConfig {
    /// [`Timing::start_confirm`].
    pub start_confirm: Option<u32>,
    /// [`Timing::preroll`].
    pub preroll: Option<u32>,
    /// [`Timing::hangover`].
    pub hangover: Option<u32>,
    /// [`Timing::hangover_unfinished`].
    pub hangover_unfinished: Option<u32>,
    /// [`Timing::hangover_low`].
    pub hangover_low: Option<u32>,
    /// [`Timing::barge_in`].
    pub barge_in: Option<u32>,
    /// [`Timing::piece`].
    pub piece: Option<u32>,
    /// [`Timing::lead`].
    pub lead: Option<u32>,
}

/// Functions that the model may call.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct ToolsConfig {
    /// Those of [`crate::tools::BUILTIN`] that are offered in every conversation.
    pub builtin: Vec<String>,
    /// [`Timing::tool_timeout`].
    pub timeout_seconds: u32,
    /// The function that searches for clients that ask for `google_search`; `None` refuses them.
    pub google_search: Option<String>,
    /// Servers whose functions are offered in every conversation.
    pub mcp: Vec<McpConfig>,
}

/// A server of the Model Context Protocol: a program that speaks over its standard streams, or a URL.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct McpConfig {
    /// The program; empty for a URL.
    pub command: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Where the server is reached by streamable HTTP; empty for a program.
    pub url: String,
    /// The variable of the environment that holds the bearer token for `url`.
    pub token_env: Option<String>,
    /// Its name in logs and metrics; the program or the URL if there is none.
    pub name: Option<String>,
}

impl McpConfig {
    /// What it is called in logs and metrics.
    pub fn label(&self) -> &str {
        match &self.name {
            Some(name) => name,
            None if self.url.is_empty() => &self.command,
            None => &self.url,
        }
    }

    fn check(&self) -> Result<(), String> {
        match (self.command.is_empty(), self.url.is_empty()) {
            (true, true) => Err("a server has a command or a url".into()),
            (false, false) => Err(format!("{:?}: a server has a command or a url, not both", self.label())),
            (false, true) if self.token_env.is_some() => Err(format!("{:?}: token_env is for a url", self.label())),
            (true, false) if !self.args.is_empty() => Err(format!("{:?}: args are for a command", self.label())),
            (true, false) if !self.url.starts_with("http://") => {
                Err(format!("{:?} does not begin with http:// (for https, put a proxy before it)", self.url))
            }
            // Addresses are in logs and metrics.
            (true, false) if self.url.contains('@') => Err("a url with a password; use token_env".into()),
            _ => Ok(()),
        }
    }
}

impl Default for ToolsConfig {
    fn default() -> Self {
        Self { builtin: Vec::new(), timeout_seconds: 60, google_search: None, mcp: Vec::new() }
    }
}

/// Resumption of conversations whose stream has ended.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct ResumptionConfig {
    /// How long a handle is good for.
    pub seconds: u32,
    /// A database in which conversations are kept, so that they outlive the server; `None` for memory.
    pub file: Option<PathBuf>,
    /// A file with the key that signs handles; `None` for one that is kept with the conversations.
    pub key_file: Option<PathBuf>,
}

impl Default for ResumptionConfig {
    fn default() -> Self {
        Self { seconds: 7_200, file: None, key_file: None }
    }
}

/// Settings of the cascade engine.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct CascadeConfig {
    /// A GGUF file to think with; `None` for the default one.
    pub lm: Option<PathBuf>,
    /// Recogniser: a folder inside `whisper` in the models folder.
    pub recognizer: String,
    /// Threads that compute; `None` for all cores.
    pub threads: Option<usize>,
    /// Tokens of a prompt and its reply.
    pub context: usize,
}

impl Default for CascadeConfig {
    fn default() -> Self {
        Self { lm: None, recognizer: "base".into(), threads: None, context: 8_192 }
    }
}

/// Settings of the omni engine.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct OmniConfig {
    /// The checkpoint's folder: `config.json`, `tokenizer.json` and the weights.
    pub model: Option<PathBuf>,
    /// Threads that compute; `None` for all cores.
    pub threads: Option<usize>,
    /// Tokens of a prompt and its reply.
    pub context: usize,
    /// What computes.
    pub device: Device,
    /// How weights are kept.
    pub weights: Placement,
    /// How keys and values are kept.
    pub kv: KvType,
    /// Billions of bytes that may be used; `None` leaves it to the system.
    pub memory_gb: Option<u32>,
    /// Latest tokens that the thinker sees; `None` for all.
    pub window: Option<usize>,
    /// First tokens that it sees besides.
    pub sinks: usize,
    /// How many times the checkpoint's positions are reached.
    pub yarn: Option<f64>,
    /// Seconds of speech that are heard together; `None` for as many as the checkpoint says.
    pub audio_block: Option<usize>,
    /// What speech is scaled by.
    pub loudest: LoudestConfig,
}

/// What speech is scaled by before it is heard.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(untagged, expecting = "expected \"so far\", \"utterance\" or a number")]
pub enum LoudestConfig {
    /// What is the loudest.
    Of(LoudestOf),
    /// [`Loudest::Fixed`].
    Fixed(f32),
}

/// Among what the loudest is looked for.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub enum LoudestOf {
    /// [`Loudest::SoFar`].
    #[serde(rename = "so far")]
    SoFar,
    /// [`Loudest::Utterance`].
    #[serde(rename = "utterance")]
    Utterance,
}

impl Default for OmniConfig {
    fn default() -> Self {
        Self {
            model: None,
            threads: None,
            context: 4_096,
            device: Device::Cpu,
            weights: Placement::F32,
            kv: KvType::F32,
            memory_gb: None,
            window: None,
            sinks: 16,
            yarn: None,
            audio_block: None,
            loudest: LoudestConfig::Of(LoudestOf::SoFar),
        }
    }
}

impl OmniConfig {
    /// The engine's options for a checkpoint in the folder `model` and so many conversations.
    pub fn options(&self, model: PathBuf, sessions: usize) -> Options {
        let defaults = Options::new(model);
        Options {
            threads: self.threads.unwrap_or(defaults.threads),
            sessions,
            context: self.context,
            device: self.device,
            weights: self.weights,
            kv: self.kv,
            memory: self.memory_gb.map(|gb| u64::from(gb) * 1_000_000_000),
            visible: self.window.map_or(Visible::All, |window| Visible::Recent { window, sinks: self.sinks }),
            yarn: self.yarn,
            audio_block: self.audio_block,
            loudest: match self.loudest {
                LoudestConfig::Of(LoudestOf::SoFar) => Loudest::SoFar,
                LoudestConfig::Of(LoudestOf::Utterance) => Loudest::Utterance,
                LoudestConfig::Fixed(loudest) => Loudest::Fixed(loudest),
            },
            ..defaults
        }
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not what it should be. The message names line and field.
    #[error("configuration {}: {message}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and what.
        message: String,
    },
    /// A value cannot be used.
    #[error("{origin}: {field}: {message}")]
    Value {
        /// The file, or where else the values came from.
        origin: String,
        /// The field, dotted.
        field: &'static str,
        /// What is wrong, and what is possible.
        message: String,
    },
}

impl Config {
    /// The configuration that flags, environment and file make together.
    ///
    /// # Errors
    /// The file or a value cannot be used.
    pub fn load(args: &ServeArgs) -> Result<Self, ConfigError> {
        let mut config = match &args.config {
            Some(path) => {
                let text =
                    std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.clone(), source })?;
                Self::parse(path, &text)?
            }
            None => Self::default(),
        };
        config.override_with(args);
        let origin =
            args.config.as_ref().map_or("configuration".to_owned(), |p| format!("configuration {}", p.display()));
        config.check(&origin)?;
        Ok(config)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text)
            .map_err(|e| ConfigError::Parse { path: path.to_owned(), message: e.to_string().trim_end().to_owned() })
    }

    fn override_with(&mut self, args: &ServeArgs) {
        fn put<T: Clone>(target: &mut T, value: &Option<T>) {
            if let Some(value) = value {
                *target = value.clone();
            }
        }
        put(&mut self.listen, &args.listen);
        put(&mut self.http, &args.http);
        put(&mut self.engine, &args.engine);
        self.keys = args.keys.clone().or(self.keys.take());
        self.allow_anyone |= args.allow_anyone;
        self.log_content |= args.log_content;
        self.tls.cert = args.tls_cert.clone().or(self.tls.cert.take());
        self.tls.key = args.tls_key.clone().or(self.tls.key.take());
        self.tls.client_ca = args.tls_client_ca.clone().or(self.tls.client_ca.take());
        self.models = args.models.clone().or(self.models.take());
        self.cascade.lm = args.lm.clone().or(self.cascade.lm.take());
        self.cascade.threads = args.threads.or(self.cascade.threads);
        self.omni.model = args.model.clone().or(self.omni.model.take());
        self.omni.threads = args.threads.or(self.omni.threads);
        self.omni.device = args.device.unwrap_or(self.omni.device);
    }

    fn check(&self, origin: &str) -> Result<(), ConfigError> {
        let wrong = |field, message| Err(ConfigError::Value { origin: origin.to_owned(), field, message });
        if !ENGINES.contains(&self.engine.as_str()) {
            return wrong("engine", format!("{:?} does not exist; there is: {}", self.engine, ENGINES.join(", ")));
        }
        if self.engine == "omni" && self.omni.model.is_none() {
            return wrong("omni.model", "is not set; --model names the checkpoint's folder".into());
        }
        match (&self.tls.cert, &self.tls.key, &self.tls.client_ca) {
            (Some(_), None, _) => return wrong("tls.key", "is not set; --tls-key names the certificate's key".into()),
            (None, Some(_), _) => {
                return wrong("tls.cert", "is not set; --tls-cert names the key's certificate".into());
            }
            (None, None, Some(_)) => {
                return wrong("tls.cert", "is not set, and clients show certificates only over TLS".into());
            }
            _ => {}
        }
        let timing = &self.timing;
        let ranges = [
            ("max_conversations", Some(self.max_conversations as u64), 1, 10_000),
            ("max_lag_ms", Some(self.max_lag_ms.into()), 10, 60_000),
            ("drain_seconds", Some(self.drain_seconds.into()), 0, 600),
            ("setup_timeout_seconds", Some(self.setup_timeout_seconds.into()), 1, 600),
            ("idle_timeout_seconds", self.idle_timeout_seconds.map(u64::from), 1, 86_400),
            ("timing.start_confirm", timing.start_confirm.map(u64::from), 0, 2_000),
            ("timing.preroll", timing.preroll.map(u64::from), 0, 1_000),
            ("timing.hangover", timing.hangover.map(u64::from), 50, 10_000),
            ("timing.hangover_unfinished", timing.hangover_unfinished.map(u64::from), 50, 10_000),
            ("timing.hangover_low", timing.hangover_low.map(u64::from), 50, 10_000),
            ("timing.barge_in", timing.barge_in.map(u64::from), 50, 5_000),
            ("timing.piece", timing.piece.map(u64::from), 20, 100),
            ("timing.lead", timing.lead.map(u64::from), 0, 2_000),
            ("tools.timeout_seconds", Some(self.tools.timeout_seconds.into()), 1, 3_600),
            ("resumption.seconds", Some(self.resumption.seconds.into()), 1, 30 * 86_400),
            ("cascade.threads", self.cascade.threads.map(|n| n as u64), 1, 256),
            ("cascade.context", Some(self.cascade.context as u64), 512, 1 << 20),
            ("omni.threads", self.omni.threads.map(|n| n as u64), 1, 256),
            ("omni.context", Some(self.omni.context as u64), 128, 1 << 20),
            ("omni.memory_gb", self.omni.memory_gb.map(u64::from), 1, 10_000),
            ("omni.window", self.omni.window.map(|n| n as u64), 64, 1 << 20),
            ("omni.sinks", Some(self.omni.sinks as u64), 0, 1_024),
            ("omni.audio_block", self.omni.audio_block.map(|n| n as u64), 1, 8),
        ];
        for (field, value, low, high) in ranges {
            if let Some(value) = value
                && !(low..=high).contains(&value)
            {
                return wrong(field, format!("{value} is not within {low} to {high}"));
            }
        }
        if let LoudestConfig::Fixed(loudest) = self.omni.loudest
            && !(-10.0..=10.0).contains(&loudest)
        {
            return wrong("omni.loudest", format!("{loudest} is not within -10 to 10"));
        }
        if let Some(alias) = self.aliases.iter().find(|alias| alias.trim().is_empty()) {
            return wrong("aliases", format!("{alias:?} is not a name"));
        }
        // As browsers write them. Others would never be met, and `null` is every page that has been put into a sandbox.
        let is_origin = |origin: &str| {
            let parts = origin.split_once("://");
            parts.is_some_and(|(_, host)| !host.is_empty() && !host.contains(['/', '*', '?', '@', ' ']))
        };
        if let Some(origin) = self.origins.iter().find(|origin| !is_origin(origin)) {
            return wrong("origins", format!("{origin:?} is not of the form \"https://example.org\""));
        }
        if let Some(name) = self.tools.builtin.iter().find(|name| !BUILTIN.contains(&name.as_str())) {
            return wrong("tools.builtin", format!("{name:?} is not built in; there is: {}", BUILTIN.join(", ")));
        }
        for server in &self.tools.mcp {
            if let Err(message) = server.check() {
                return wrong("tools.mcp", message);
            }
        }
        Ok(())
    }

    /// When things happen in a conversation.
    pub fn timing(&self) -> Timing {
        let ms = |value: Option<u32>, default| value.map_or(default, |ms| Duration::from_millis(ms.into()));
        let (wanted, default) = (&self.timing, Timing::default());
        Timing {
            start_confirm: ms(wanted.start_confirm, default.start_confirm),
            preroll: ms(wanted.preroll, default.preroll),
            hangover: ms(wanted.hangover, default.hangover),
            hangover_unfinished: ms(wanted.hangover_unfinished, default.hangover_unfinished),
            hangover_low: ms(wanted.hangover_low, default.hangover_low),
            barge_in: ms(wanted.barge_in, default.barge_in),
            piece: ms(wanted.piece, default.piece),
            lead: ms(wanted.lead, default.lead),
            tool_timeout: Duration::from_secs(self.tools.timeout_seconds.into()),
            idle_timeout: self.idle_timeout_seconds.map(|seconds| Duration::from_secs(seconds.into())),
            ..default
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        let config = Config::parse(Path::new("c.toml"), text).map_err(|e| e.to_string())?;
        config.check("configuration c.toml").map_err(|e| e.to_string())?;
        Ok(config)
    }

    #[test]
    fn an_empty_file_is_the_default() {
        assert_eq!(parse(""), Ok(Config::default()));
        assert_eq!(Config::default().timing(), Timing::default());
    }

    #[test]
    fn the_documented_file_is_the_default() {
        let page = include_str!("config.rs");
        let block = page.split("//! ```").nth(1).expect("the example");
        let text: String = block.lines().skip(1).map(|l| l.trim_start_matches("//!").to_owned() + "\n").collect();
        let config = parse(&text).expect("it is a configuration");
        assert_eq!(config.timing(), Timing::default());
        assert_eq!(Config { timing: TimingConfig::default(), ..config }, Config::default());
    }

    #[test]
    fn flags_weigh_more_than_the_file() {
        let mut config = parse("listen = \"1.2.3.4:5\"\n[cascade]\nlm = \"a.gguf\"\nthreads = 3").expect("good");
        let args = ServeArgs { listen: Some("[::1]:0".into()), threads: Some(1), ..Default::default() };
        config.override_with(&args);
        assert_eq!(config.listen, "[::1]:0");
        assert_eq!((config.cascade.lm, config.cascade.threads), (Some(PathBuf::from("a.gguf")), Some(1)));
    }

    #[test]
    fn errors_name_the_file_and_the_field() {
        for (text, words) in [
            ("listn = \"x\"", vec!["c.toml", "listn", "line 1"]),
            ("max_conversations = \"many\"", vec!["c.toml", "max_conversations", "line 1"]),
            ("max_conversations = 0", vec!["c.toml", "max_conversations", "1 to 10000"]),
            ("[timing]\npiece = 5", vec!["c.toml", "timing.piece", "20 to 100"]),
            ("[timing]\nlag = 5", vec!["c.toml", "lag", "line 2"]),
            ("[tools]\nbuiltin = [\"hammer\"]", vec!["c.toml", "tools.builtin", "hammer", "clock"]),
            ("[[tools.mcp]]\nname = \"x\"", vec!["c.toml", "tools.mcp", "a command or a url"]),
            ("[[tools.mcp]]\ncommand = \"a\"\nurl = \"http://b\"", vec!["tools.mcp", "not both"]),
            ("[[tools.mcp]]\nurl = \"https://b\"", vec!["tools.mcp", "http://"]),
            ("[[tools.mcp]]\nurl = \"http://a:b@c\"", vec!["tools.mcp", "token_env"]),
            ("engine = \"parrot\"", vec!["c.toml", "engine", "parrot", "cascade", "omni"]),
            ("[omni]\ndevice = \"abacus\"", vec!["c.toml", "abacus", "cpu, cuda or cuda:N"]),
            ("engine = \"omni\"", vec!["c.toml", "omni.model", "--model"]),
            ("[omni]\nloudest = \"never\"", vec!["c.toml", "so far", "utterance", "line 2"]),
            ("[omni]\nloudest = nan", vec!["c.toml", "omni.loudest", "-10 to 10"]),
            ("[tls]\ncert = \"c.pem\"", vec!["c.toml", "tls.key", "--tls-key"]),
            ("[tls]\nkey = \"k.pem\"", vec!["c.toml", "tls.cert", "--tls-cert"]),
            ("[tls]\nclient_ca = \"a.pem\"", vec!["c.toml", "tls.cert", "only over TLS"]),
            ("aliases = [\"\"]", vec!["c.toml", "aliases"]),
            ("origins = [\"*\"]", vec!["c.toml", "origins", "https://example.org"]),
            ("origins = [\"https://a.example/talk\"]", vec!["c.toml", "origins"]),
            ("origins = [\"a.example\"]", vec!["c.toml", "origins"]),
            ("origins = [\"null\"]", vec!["c.toml", "origins"]),
        ] {
            let error = parse(text).expect_err(text);
            for word in words {
                assert!(error.contains(word), "{text}: {error:?} lacks {word:?}");
            }
        }
    }

    #[test]
    fn what_speech_is_scaled_by_is_a_name_or_a_number() {
        for (text, loudest) in [
            ("", Loudest::SoFar),
            ("loudest = \"so far\"", Loudest::SoFar),
            ("loudest = \"utterance\"", Loudest::Utterance),
            ("loudest = 1.5", Loudest::Fixed(1.5)),
            ("loudest = 2", Loudest::Fixed(2.0)),
        ] {
            let config = parse(&format!("[omni]\n{text}")).expect(text);
            assert_eq!(config.omni.options(PathBuf::from("x"), 1).loudest, loudest, "{text}");
        }
    }
}
