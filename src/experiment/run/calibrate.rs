//! What nodes and HTTP take beside functions, measured on real nodes, for simulations.

use std::net::IpAddr;
use std::time::Duration;

use awc::http::header::{HeaderName, HeaderValue};
use tokio::time::{Instant, timeout};

use super::answer;
use super::{ExperimentError, Inputs};
use crate::experiment::design::job::Job;
use crate::experiment::design::scenario::SimulatedOverheads;
use crate::types::url_host;
use crate::wire::headers;

/// Calls of each kind to each node, and to how many nodes.
const CALLS: usize = 100;
const NODES_MAX: usize = 12;
/// Milliseconds of work that a timed function does.
const WORK_MS: f64 = 30.0;
/// What one call may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Measures on the nodes of `inputs`, which must be idle and have the embedded functions: medians over many calls, one
/// after the other.
///
/// # Errors
/// Nodes do not answer, or a call fails.
pub async fn calibrate(inputs: &Inputs) -> Result<SimulatedOverheads, ExperimentError> {
    let nodes = inputs.fleet.0.iter().take(NODES_MAX);
    let nodes: Vec<IpAddr> = nodes.map(|member| member.address).collect();
    let probe =
        Probe { inputs, ways: inputs.access.ways(PATIENCE, inputs.scenario.scheduler_port) };
    let (mut clients, mut forwards, mut probes, mut ends) = (vec![], vec![], vec![], vec![]);
    let work = format!("/function/fn-work?dist=constant&mean_ms={WORK_MS}");
    for &node in &nodes {
        // The first of each kind makes connections.
        for call in 0..=CALLS {
            let here = probe.call(node, "/function/fn-echo", Some(&headers::BYPASS)).await?;
            let asked = probe.load(node).await?;
            if call > 0 {
                clients.push(here.total_s);
                probes.push(asked);
            }
            if nodes.len() > 1 {
                let away = probe.call(node, "/function/fn-echo", Some(&headers::FORWARD)).await?;
                forwards.extend((call > 0 && away.external).then_some(away.total_s));
            }
        }
        for _ in 0..CALLS / 10 {
            let ran = probe.call(node, &work, Some(&headers::BYPASS)).await?;
            ends.extend(ran.execution_s.map(|ran| ran - WORK_MS / 1000.0));
        }
    }
    let client = median(&mut clients);
    Ok(SimulatedOverheads {
        client_ms: ms(client),
        probe_ms: ms(median(&mut probes)),
        forward_ms: ms(median(&mut forwards) - client),
        end_ms: ms(median(&mut ends)),
    })
}

fn median(seconds: &mut [f64]) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds.get(seconds.len() / 2).copied().unwrap_or(0.0)
}

/// Milliseconds, to a microsecond; not below 0, which nothing takes.
fn ms(seconds: f64) -> f64 {
    (seconds.max(0.0) * 1e6).round() / 1e3
}

struct Probe<'a> {
    inputs: &'a Inputs,
    ways: crate::fleet::Ways,
}

impl Probe<'_> {
    fn url(&self, node: IpAddr, path: &str) -> String {
        let port = self.inputs.scenario.scheduler_port;
        format!("http://{}:{port}{path}", url_host(&node.to_string()))
    }

    /// One call, steered by that header.
    async fn call(
        &self,
        node: IpAddr,
        path: &str,
        steer: Option<&HeaderName>,
    ) -> Result<Job, ExperimentError> {
        let mut request = self.ways.to_scheduler(node).post(self.url(node, path));
        if let Some(steer) = steer {
            request = request.insert_header((steer.clone(), HeaderValue::from_static("true")));
        }
        let began = Instant::now();
        let asked = async {
            let mut answer = request.send().await.map_err(|why| why.to_string())?;
            let body = answer.body().await.map_err(|why| why.to_string())?;
            let mut job = Job { total_s: began.elapsed().as_secs_f64(), ..Job::default() };
            answer::note(&mut job, answer.status().as_u16(), answer.headers(), &body);
            match job.status {
                200 => Ok(job),
                status => Err(format!("{path} was answered with {status}")),
            }
        };
        self.within(node, asked).await
    }

    /// Seconds that asking for the load takes.
    async fn load(&self, node: IpAddr) -> Result<f64, ExperimentError> {
        let request = self.ways.to_scheduler(node).get(self.url(node, "/monitoring/load"));
        let began = Instant::now();
        let asked = async {
            let mut answer = request.send().await.map_err(|why| why.to_string())?;
            answer.body().await.map_err(|why| why.to_string())?;
            Ok(began.elapsed().as_secs_f64())
        };
        self.within(node, asked).await
    }

    async fn within<T>(
        &self,
        node: IpAddr,
        asked: impl Future<Output = Result<T, String>>,
    ) -> Result<T, ExperimentError> {
        let asked = timeout(PATIENCE, asked).await;
        let answered = asked.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        answered.map_err(|why| ExperimentError::Fleet(vec![format!("{node}: {why}")]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_told_in_milliseconds_and_never_below_nothing() {
        assert_eq!(ms(median(&mut [0.003, 0.001, 0.002])), 2.0);
        assert_eq!((ms(median(&mut [])), ms(-1.0), ms(0.000_123_4)), (0.0, 0.0, 0.123));
    }
}
