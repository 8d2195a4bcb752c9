//! Functions of a Model Context Protocol server that runs beside this one and speaks over its standard streams.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use causerie_model_api::{ToolBehavior, ToolDeclaration};
use rmcp::model::CallToolRequestParams;
use rmcp::service::RunningService;
use rmcp::transport::TokioChildProcess;
use rmcp::{RoleClient, ServiceExt as _};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::timeout;

use crate::config::McpConfig;

/// How long a server may take to start and to list its functions.
const START_WAIT: Duration = Duration::from_secs(20);

type Running = RunningService<RoleClient, ()>;

/// One server. When it has died it is started anew at the next call.
pub(super) struct Server {
    config: McpConfig,
    running: Mutex<Arc<Running>>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Server {
    /// Starts the server and asks for its functions.
    ///
    /// # Errors
    /// For the operator.
    pub(super) async fn start(config: &McpConfig) -> Result<(Arc<Self>, Vec<ToolDeclaration>), String> {
        let running = connect(config).await?;
        let listed = timeout(START_WAIT, running.list_all_tools()).await;
        let listed = listed.map_err(|_| failed(config, "it did not list its functions in time"))?;
        let tools = listed.map_err(|error| failed(config, error))?;
        let declarations = tools.into_iter().map(|tool| ToolDeclaration {
            name: tool.name.into_owned(),
            description: tool.description.unwrap_or_default().into_owned(),
            parameters: Value::Object((*tool.input_schema).clone()).to_string(),
            behavior: ToolBehavior::Blocking,
        });
        let declarations = declarations.collect();
        Ok((Arc::new(Self { config: config.clone(), running: Mutex::new(Arc::new(running)) }), declarations))
    }

    /// Calls a function; how long that may take is the session's to decide, which drops the call.
    ///
    /// # Errors
    /// For the model.
    pub(super) async fn call(&self, name: &str, arguments: Value) -> Result<Value, String> {
        let unavailable = |error: String| {
            tracing::warn!(
                server = self.config.command,
                function = name,
                "a function of an MCP server failed: {error}"
            );
            "the function is not available now".to_owned()
        };
        let running = self.alive().await.map_err(unavailable)?;
        let arguments = arguments.as_object().cloned().unwrap_or_default();
        let call = CallToolRequestParams::new(name.to_owned()).with_arguments(arguments);
        let result = running.call_tool(call).await.map_err(|error| unavailable(error.to_string()))?;
        let result = serde_json::to_value(result).unwrap_or_default();
        let texts = result["content"].as_array().into_iter().flatten().filter_map(|block| block["text"].as_str());
        let text = texts.collect::<Vec<_>>().join("\n");
        match (&result["structuredContent"], result["isError"].as_bool()) {
            (_, Some(true)) => Err(text),
            (Value::Null, _) => Ok(json!({ "output": text })),
            (structured, _) => Ok(structured.clone()),
        }
    }

    async fn alive(&self) -> Result<Arc<Running>, String> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if !running.is_transport_closed() {
            return Ok(running);
        }
        let running = Arc::new(connect(&self.config).await?);
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = running.clone();
        Ok(running)
    }
}

async fn connect(config: &McpConfig) -> Result<Running, String> {
    let mut command = Command::new(&config.command);
    command.args(&config.args);
    let transport = TokioChildProcess::new(command).map_err(|error| failed(config, error))?;
    let served = timeout(START_WAIT, ().serve(transport)).await;
    served.map_err(|_| failed(config, "it did not answer in time"))?.map_err(|error| failed(config, error))
}

fn failed(config: &McpConfig, error: impl std::fmt::Display) -> String {
    format!("MCP server {:?}: {error}", config.command)
}
