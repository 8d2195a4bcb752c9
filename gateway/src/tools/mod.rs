//! Functions that the server runs itself. They are offered to every conversation whose engine calls functions, beside
//! those of the client, and a call of one is answered without the client seeing it.

mod calculator;
mod mcp;
mod search;

use std::sync::Arc;

use causerie_model_api::{ToolBehavior, ToolDeclaration};
use causerie_session::Grounding;
pub use mcp::McpFigures;
use serde_json::{Value, json};

use crate::config::ToolsConfig;

/// Names in `tools.builtin` of the configuration.
pub const BUILTIN: [&str; 2] = ["clock", "calculator"];

/// The functions of a server.
#[derive(Debug, Default)]
pub struct Toolbox {
    tools: Vec<(ToolDeclaration, Runner)>,
    servers: Vec<Arc<mcp::Server>>,
    /// The function that searches, for clients that ask for it.
    search: Option<String>,
}

/// The result of a function.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// JSON text, with the key `error` when there is no result.
    pub value: String,
    /// What was searched and found.
    pub grounding: Grounding,
}

#[derive(Clone, Debug)]
enum Runner {
    Clock,
    Calculator,
    Mcp(Arc<mcp::Server>),
}

impl Toolbox {
    /// The toolbox of a configuration; starts the servers that it names.
    ///
    /// # Errors
    /// A server cannot be used, or two have a function of the same name; for the operator.
    pub async fn start(config: &ToolsConfig) -> Result<Arc<Self>, String> {
        let mut toolbox = Self { tools: Self::new(&config.builtin).tools.clone(), servers: Vec::new(), search: None };
        for server in &config.mcp {
            let (server, declarations) = mcp::Server::start(server).await?;
            toolbox.servers.push(server.clone());
            for declaration in declarations {
                if toolbox.tools.iter().any(|(other, _)| other.name == declaration.name) {
                    return Err(format!("two functions are called {:?}", declaration.name));
                }
                toolbox.tools.push((declaration, Runner::Mcp(server.clone())));
            }
        }
        if let Some(name) = &config.google_search {
            if !toolbox.tools.iter().any(|(declaration, _)| declaration.name == *name) {
                return Err(format!("tools.google_search: there is no function {name:?}"));
            }
            toolbox.search = Some(name.clone());
        }
        Ok(Arc::new(toolbox))
    }

    /// A toolbox with these of [`BUILTIN`]; others are left out.
    pub fn new(builtin: &[String]) -> Arc<Self> {
        let tools = builtin.iter().filter_map(|name| match name.as_str() {
            "clock" => {
                let shape = json!({"type": "object", "properties": {}});
                Some((declaration(name, "The current date and time of day", &shape), Runner::Clock))
            }
            "calculator" => {
                let expression = json!({"type": "string", "description": "such as (17 + 4) * 2 / 3", "maxLength": 200});
                let properties = json!({"expression": expression});
                let shape = json!({"type": "object", "properties": properties, "required": ["expression"]});
                Some((declaration(name, "Calculates with numbers", &shape), Runner::Calculator))
            }
            _ => None,
        });
        Arc::new(Self { tools: tools.collect(), servers: Vec::new(), search: None })
    }

    /// The function that searches.
    pub fn search(&self) -> Option<&str> {
        self.search.as_deref()
    }

    /// The states of the servers, in the order of the configuration.
    pub fn figures(&self) -> Vec<McpFigures> {
        self.servers.iter().map(|server| server.figures()).collect()
    }

    /// What the model is told of them; of the one that searches only `with_search`.
    pub fn declarations(&self, with_search: bool) -> Vec<ToolDeclaration> {
        let declarations = self.tools.iter().map(|(declaration, _)| declaration);
        declarations.filter(|tool| with_search || self.search() != Some(&tool.name)).cloned().collect()
    }

    /// Runs a function.
    pub async fn call(&self, name: &str, arguments: &str) -> Answer {
        let arguments: Value = serde_json::from_str(arguments).unwrap_or_default();
        let runner = self.tools.iter().find(|(declaration, _)| declaration.name == name).map(|(_, runner)| runner);
        let answer = match runner {
            Some(Runner::Clock) => Ok(json!({"now": jiff::Zoned::now().strftime("%A, %-d %B %Y, %H:%M").to_string()})),
            Some(Runner::Calculator) => calculator::evaluate(arguments["expression"].as_str().unwrap_or_default())
                .map(|result| json!({ "result": result })),
            Some(Runner::Mcp(server)) => server.call(name, arguments.clone()).await,
            None => Err("there is no such function".to_owned()),
        };
        match answer {
            Ok(found) if self.search() == Some(name) => {
                Answer { grounding: search::grounding(&arguments, &found), value: found.to_string() }
            }
            Ok(value) => Answer { value: value.to_string(), grounding: Grounding::default() },
            Err(error) => Answer { value: json!({ "error": error }).to_string(), grounding: Grounding::default() },
        }
    }
}

fn declaration(name: &str, description: &str, parameters: &Value) -> ToolDeclaration {
    ToolDeclaration {
        name: name.to_owned(),
        description: description.to_owned(),
        parameters: parameters.to_string(),
        behavior: ToolBehavior::Blocking,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_built_in_answers() {
        let toolbox = Toolbox::new(&BUILTIN.map(str::to_owned));
        assert_eq!(toolbox.declarations(false).len(), BUILTIN.len());
        let answer = toolbox.call("calculator", r#"{"expression": "2 * (3 + 4)"}"#).await.value;
        assert_eq!(answer, r#"{"result":14.0}"#);
        for (name, arguments) in [("calculator", "{}"), ("calculator", "not json"), ("hammer", "{}")] {
            let answer = toolbox.call(name, arguments).await.value;
            assert!(answer.starts_with(r#"{"error":"#), "{name} {arguments}: {answer}");
        }
        assert!(toolbox.call("clock", "{}").await.value.contains(':'));
    }
}
