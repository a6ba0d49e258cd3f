//! Samples of FindCoordinator; see the module above, which shows them.

use kafka_protocol::messages::*;

use super::{Visitor, text};

/// Shows them.
pub fn visit(visitor: &mut impl Visitor) {
    for version in 0..=6 {
        visitor.request(version, find_coordinator_request(version));
        visitor.response::<FindCoordinatorRequest>(version, find_coordinator_response(version));
    }
}

fn find_coordinator_request(version: i16) -> FindCoordinatorRequest {
    let request = FindCoordinatorRequest::default();
    let request = if version >= 1 { request.with_key_type(1) } else { request };
    match version {
        ..4 => request.with_key(text("group")),
        _ => request.with_coordinator_keys(vec![text("group"), text("other")]),
    }
}

fn find_coordinator_response(version: i16) -> FindCoordinatorResponse {
    use find_coordinator_response::Coordinator;
    let response = FindCoordinatorResponse::default();
    let response = if version >= 1 { response.with_throttle_time_ms(3) } else { response };
    if version < 4 {
        // Version 0 has no message, which is read as an empty one.
        let message = Some(text(if version >= 1 { "elsewhere" } else { "" }));
        let response = response.with_error_code(15).with_error_message(message);
        return response.with_node_id(BrokerId(1002)).with_host(text("localhost")).with_port(9093);
    }
    response.with_coordinators(vec![
        Coordinator::default()
            .with_key(text("group"))
            .with_node_id(BrokerId(1002))
            .with_host(text("localhost"))
            .with_port(9093)
            .with_error_message(None),
        Coordinator::default()
            .with_key(text("other"))
            .with_node_id(BrokerId(-1))
            .with_port(-1)
            .with_error_code(15)
            .with_error_message(Some(text("elsewhere"))),
    ])
}
