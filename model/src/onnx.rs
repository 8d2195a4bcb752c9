//! ONNX networks through rten, each on one thread of its own.
//!
//! The audio front end, the voice and the end-of-turn detector are small; a second thread would save them little and
//! would compete with the language model for the machine's cores. A pool of one worker blocks the caller while it runs
//! and sleeps otherwise.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rten::{Model, ModelOptions, NodeId, RunOptions, ThreadPool, Value, ValueOrView};
use rten_tensor::Tensor;
use rten_tensor::prelude::*;

/// Why an ONNX network cannot be loaded or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OnnxError {
    /// The file is not there.
    #[error("{} is missing; `causerie models pull` fetches it", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file is there and cannot be used.
    #[error("{} cannot be used ({reason}); `causerie models verify` finds damaged files", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The network refused its input.
    #[error("{network}: {reason}")]
    Run {
        /// The file's name.
        network: String,
        /// What the runtime says.
        reason: String,
    },
}

/// The one worker thread that networks share when they are driven from one place.
#[derive(Clone)]
pub struct Worker(Arc<ThreadPool>);

impl Worker {
    /// Starts the thread.
    #[expect(clippy::new_without_default, reason = "it starts a thread; that should be seen at the call")]
    pub fn new() -> Self {
        Self(Arc::new(ThreadPool::with_num_threads(1)))
    }
}

/// A loaded network with its inputs and outputs resolved.
pub(crate) struct Network<const IN: usize, const OUT: usize> {
    model: Model,
    inputs: [NodeId; IN],
    outputs: [NodeId; OUT],
    options: RunOptions,
    name: String,
}

impl<const IN: usize, const OUT: usize> Network<IN, OUT> {
    /// Loads `path`; `inputs` and `outputs` are names of values in its graph, in the order of [`Network::run`].
    pub(crate) fn load(
        path: &Path,
        worker: &Worker,
        inputs: [&str; IN],
        outputs: [&str; OUT],
    ) -> Result<Self, OnnxError> {
        let malformed = |reason: String| OnnxError::Malformed { path: path.into(), reason };
        let bytes = read(path)?;
        let model = Model::load(bytes).map_err(|e| malformed(e.to_string()))?;
        let node = |name: &str| model.find_node(name).ok_or_else(|| malformed(format!("it has no value `{name}`")));
        let mut input_ids = [NodeId::from_u32(0); IN];
        for (id, name) in input_ids.iter_mut().zip(inputs) {
            *id = node(name)?;
        }
        let mut output_ids = [NodeId::from_u32(0); OUT];
        for (id, name) in output_ids.iter_mut().zip(outputs) {
            *id = node(name)?;
        }
        let options = RunOptions::default().with_thread_pool(Some(Arc::clone(&worker.0)));
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(Self { model, inputs: input_ids, outputs: output_ids, options, name })
    }

    /// Runs the network once.
    pub(crate) fn run(&self, inputs: [ValueOrView<'_>; IN]) -> Result<[Value; OUT], OnnxError> {
        let inputs = self.inputs.into_iter().zip(inputs).collect();
        self.model.run_n(inputs, self.outputs, Some(self.options.clone())).map_err(|e| self.failed(&e))
    }

    /// An error about this network.
    pub(crate) fn failed(&self, reason: &dyn std::fmt::Display) -> OnnxError {
        OnnxError::Run { network: self.name.clone(), reason: reason.to_string() }
    }
}

/// The constants of a graph whose arithmetic is done elsewhere.
pub(crate) struct Constants {
    model: Model,
    path: PathBuf,
}

impl Constants {
    /// Loads `path`.
    pub(crate) fn load(path: &Path) -> Result<Self, OnnxError> {
        let bytes = read(path)?;
        let model = ModelOptions::with_all_ops().enable_optimization(false).load(bytes);
        let model = model.map_err(|e| OnnxError::Malformed { path: path.into(), reason: e.to_string() })?;
        Ok(Self { model, path: path.into() })
    }

    /// The floats of the constant `name`, finite all of them.
    pub(crate) fn floats(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, OnnxError> {
        let malformed = |reason: String| OnnxError::Malformed { path: self.path.clone(), reason };
        let id = self.model.find_node(name).ok_or_else(|| malformed(format!("it has no value `{name}`")))?;
        // A constant needs no inputs.
        let [value] = self.model.run_n(Vec::new(), [id], None).map_err(|e| malformed(format!("`{name}`: {e}")))?;
        let tensor: Tensor<f32> = value.try_into().map_err(|e| malformed(format!("`{name}`: {e}")))?;
        if tensor.shape() != shape {
            return Err(malformed(format!("`{name}` has the shape {:?}; expected {shape:?}", tensor.shape())));
        }
        let floats = tensor.to_vec();
        match floats.iter().all(|x| x.is_finite()) {
            true => Ok(floats),
            false => Err(malformed(format!("`{name}` has values that are no numbers"))),
        }
    }
}

/// A model file's bytes.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, OnnxError> {
    std::fs::read(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => OnnxError::Missing { path: path.into() },
        _ => OnnxError::Malformed { path: path.into(), reason: error.to_string() },
    })
}
