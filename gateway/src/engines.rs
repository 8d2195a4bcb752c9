//! The engines and the detector that a configuration asks for.

use std::path::PathBuf;
use std::sync::Arc;

use causerie_model::cascade;
use causerie_model::omni::engine as omni;
use causerie_model::smart_turn::{self, SmartTurn};
use causerie_model::vad::{Vad, VadStream};

use crate::config::Config;
use crate::engine_host::EngineFactory;
use crate::media::{Completion, Detector, DetectorStream};
use crate::models::{Folder, Manifest};

/// Names of the default models in the manifest.
const LANGUAGE_MODEL: &str = "qwen2.5-coder-1.5b-instruct";
const VOICE: &str = "hibari";
const DETECTOR: &str = "silero-vad";
const COMPLETION: &str = "smart-turn";
/// Where the detectors lie in the models folder.
const DETECTOR_DIR: &str = "silero";
const COMPLETION_DIR: &str = "smart-turn";

/// The folder of the models.
pub fn models_folder(config: &Config) -> PathBuf {
    Folder::resolve(config.models.as_deref()).path().to_owned()
}

/// A factory of the engine, called on the engine's thread.
pub fn engine(config: &Config) -> EngineFactory {
    match &config.omni.model {
        Some(model) if config.engine == "omni" => omni_engine(config, model.clone()),
        _ => cascade_engine(config),
    }
}

fn omni_engine(config: &Config, model: PathBuf) -> EngineFactory {
    let options = config.omni.options(model, config.max_conversations);
    Box::new(move || {
        let plan = omni::plan(&options).map_err(|e| with_causes(&e))?;
        tracing::info!("memory planned: {plan}");
        omni::load(&options).map_err(|e| with_causes(&e))
    })
}

/// What the omni engine would need, in words for people.
///
/// # Errors
/// It would not be loaded; the message says why.
pub fn omni_plan(config: &Config) -> Result<String, String> {
    let model = config.omni.model.clone().ok_or("the configuration names no checkpoint: --model DIR")?;
    let options = config.omni.options(model, config.max_conversations);
    omni::plan(&options).map(|plan| plan.to_string()).map_err(|e| with_causes(&e))
}

fn cascade_engine(config: &Config) -> EngineFactory {
    let mut options = cascade::Options::new(models_folder(config));
    options.lm = config.cascade.lm.clone();
    options.recognizer = config.cascade.recognizer.clone();
    options.sessions = config.max_conversations;
    options.context = config.cascade.context;
    if let Some(threads) = config.cascade.threads {
        options.threads = threads;
    }
    let mut needed = vec![VOICE.to_owned(), format!("whisper-{}", options.recognizer)];
    needed.extend(options.lm.is_none().then(|| LANGUAGE_MODEL.to_owned()));
    let folder = Folder::at(&options.models);
    Box::new(move || {
        require(&folder, &needed)?;
        cascade::load(&options).map_err(|e| with_causes(&e))
    })
}

/// Fails with the command that fetches what is missing. Models that the manifest does not know are the operator's own.
fn require(folder: &Folder, names: &[String]) -> Result<(), String> {
    let manifest = Manifest::embedded();
    for name in names.iter().filter(|name| manifest.model(name).is_ok()) {
        folder.require(manifest, name).map_err(|e| with_causes(&e))?;
    }
    Ok(())
}

/// The voice-activity detector, and unless the configuration says otherwise what judges pauses.
///
/// # Errors
/// A file is missing or damaged; the message says which.
pub fn detector(config: &Config) -> Result<Arc<dyn Detector>, String> {
    let folder = models_folder(config);
    require(&Folder::at(&folder), &[DETECTOR.to_owned()])?;
    let dir = folder.join(DETECTOR_DIR);
    let network = Vad::load(&dir).map_err(|e| with_causes(&e))?;
    let completion = if config.smart_turn {
        require(&Folder::at(&folder), &[COMPLETION.to_owned()])?;
        let network = SmartTurn::load(&folder.join(COMPLETION_DIR)).map_err(|e| with_causes(&e))?;
        Some(Arc::new(Ends { network }) as Arc<dyn Completion>)
    } else {
        None
    };
    Ok(Arc::new(Silero { network: Arc::new(network), completion }))
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

/// Silero's detector.
struct Silero {
    network: Arc<Vad>,
    completion: Option<Arc<dyn Completion>>,
}

impl Detector for Silero {
    fn stream(&self) -> Box<dyn DetectorStream> {
        Box::new(SileroStream { network: self.network.clone(), stream: VadStream::new() })
    }

    fn completion(&self) -> Option<Arc<dyn Completion>> {
        self.completion.clone()
    }
}

/// Smart-turn's detector of ends.
struct Ends {
    network: SmartTurn,
}

impl Completion for Ends {
    fn finished(&self, pcm: &[f32]) -> Option<f32> {
        self.network.finished(pcm).inspect_err(|error| tracing::error!(%error, "a pause was not judged")).ok()
    }

    fn span(&self) -> usize {
        smart_turn::SPAN
    }
}

struct SileroStream {
    network: Arc<Vad>,
    stream: VadStream,
}

impl DetectorStream for SileroStream {
    fn push(&mut self, pcm: &[f32], window: &mut dyn FnMut(f32, u64, u64)) {
        self.stream.push(&self.network, pcm, |p, from, to| window(p, from.0, to.0));
    }

    fn refresh(&mut self) {
        self.stream.reset_if_due();
    }
}
