//! `/metrics`, `/startupz`, `/livez` and `/readyz` over plain HTTP.
//!
//! It has a thread of its own: a probe is answered however busy the sessions are.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::web::{self, Data};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use prometheus::{Registry, TextEncoder};
use serde_json::json;

use super::health::{Check, Health};
use crate::config::Http;

/// Largest request head and body, in bytes; nothing here takes a body.
const BODY_BYTES: usize = 1024;

/// Prometheus' text exposition format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves one node's metrics and health on `listener`. The server runs while the returned future is
/// polled; `Server::handle().stop(..)` ends it. It handles no signals.
///
/// # Errors
///
/// When the listener cannot be used.
pub fn serve(
    listener: TcpListener,
    bounds: &Http,
    registry: Registry,
    health: Arc<Health>,
) -> std::io::Result<Server> {
    let (registry, health) = (Data::new(registry), Data::from(health));
    let server = HttpServer::new(move || {
        App::new()
            .app_data(registry.clone())
            .app_data(health.clone())
            .app_data(web::PayloadConfig::new(BODY_BYTES))
            .route("/metrics", web::get().to(metrics))
            .route("/startupz", web::get().to(startup))
            .route("/livez", web::get().to(liveness))
            .route("/readyz", web::get().to(readiness))
    })
    .workers(1)
    .max_connections(bounds.connections)
    .client_request_timeout(Duration::from_secs(bounds.request_timeout_s))
    .client_disconnect_timeout(Duration::from_secs(bounds.request_timeout_s))
    .keep_alive(Duration::from_secs(bounds.keep_alive_s))
    .shutdown_timeout(1)
    .disable_signals()
    .listen(listener)?
    .run();
    Ok(server)
}

async fn metrics(registry: Data<Registry>) -> HttpResponse {
    match TextEncoder::new().encode_to_string(&registry.gather()) {
        Ok(text) => HttpResponse::Ok().content_type(METRICS_TYPE).body(text),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be written");
            HttpResponse::InternalServerError().finish()
        }
    }
}

async fn startup(request: HttpRequest, health: Data<Health>) -> HttpResponse {
    answer(&request, &health.startup())
}

async fn liveness(request: HttpRequest, health: Data<Health>) -> HttpResponse {
    answer(&request, &health.liveness())
}

async fn readiness(request: HttpRequest, health: Data<Health>) -> HttpResponse {
    answer(&request, &health.readiness())
}

/// 200 when all checks hold, else 503. `?verbose` answers with every check, else with what failed.
fn answer(request: &HttpRequest, checks: &[Check]) -> HttpResponse {
    let ok = checks.iter().all(|check| check.ok);
    let mut response = if ok { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    let verbose =
        request.query_string().split('&').any(|part| part == "verbose" || part.starts_with("verbose="));
    if verbose {
        return response.json(json!({ "ok": ok, "checks": checks }));
    }
    if ok {
        return response.content_type("text/plain").body("ok\n");
    }
    let failed: String = checks
        .iter()
        .filter(|check| !check.ok)
        .map(|check| format!("{}: {}\n", check.name, check.why))
        .collect();
    response.content_type("text/plain").body(failed)
}

#[cfg(test)]
mod tests {
    use althing_proto::time::Timestamp;

    use super::*;
    use crate::admin::probe::get;
    use crate::metrics::NodeMetrics;

    /// Serves on a free port, asks for each path in turn, gives status and body.
    fn ask(prepare: impl Fn(&Health), paths: &[&str]) -> Vec<(u16, String)> {
        actix_rt::System::new().block_on(async {
            let registry = Registry::new();
            NodeMetrics::register(&registry, "node-0").unwrap();
            let health = Health::new(|| Timestamp::from_millis(1));
            prepare(&health);
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let server = serve(listener, &Http::default(), registry, health).unwrap();
            let handle = server.handle();
            let running = actix_rt::spawn(server);
            let mut answers = Vec::new();
            for path in paths {
                answers.push(get(address, path, Duration::from_secs(10)).await.unwrap());
            }
            handle.stop(false).await;
            running.await.unwrap().unwrap();
            answers
        })
    }

    #[test]
    fn a_starting_node_is_alive_but_not_ready() {
        let answers = ask(|_| (), &["/livez", "/startupz", "/readyz?verbose", "/other"]);
        let status: Vec<u16> = answers.iter().map(|(status, _)| *status).collect();
        assert_eq!(status, [200, 503, 503, 404]);
        assert_eq!(answers[0].1, "ok\n");
        let body: serde_json::Value = serde_json::from_str(&answers[2].1).unwrap();
        assert_eq!(body["ok"], false);
        assert_eq!(body["checks"][0]["name"], "started");
    }

    #[test]
    fn a_node_that_waits_for_its_cluster_says_for_what() {
        let prepare = |health: &Health| {
            health.set_started();
            health.set_listening(true);
            health.add_condition("cluster", || Err("waits for dev-1, which cannot be reached".to_owned()));
        };
        let answers = ask(prepare, &["/readyz?verbose", "/readyz", "/livez"]);
        let status: Vec<u16> = answers.iter().map(|(status, _)| *status).collect();
        assert_eq!(status, [503, 503, 200]);
        let body: serde_json::Value = serde_json::from_str(&answers[0].1).unwrap();
        let check = body["checks"].as_array().unwrap().iter().find(|check| check["name"] == "cluster");
        assert_eq!(check.unwrap()["why"], "waits for dev-1, which cannot be reached");
        assert_eq!(answers[1].1, "cluster: waits for dev-1, which cannot be reached\n");
    }

    #[test]
    fn a_started_node_is_ready_and_shows_its_metrics() {
        let prepare = |health: &Health| {
            health.set_started();
            health.set_listening(true);
        };
        let answers = ask(prepare, &["/startupz", "/readyz", "/metrics"]);
        assert!(answers.iter().all(|(status, _)| *status == 200));
        assert!(answers[2].1.contains("\nalthing_sessions 0\n"));
        assert!(answers[2].1.contains("althing_stanzas_total{direction=\"in\",kind=\"iq\"} 0"));
    }
}
