//! Checks whether anything listens at the address of a cluster, before a client library connects to it.
//!
//! The libraries try each address until their own time limit and then return a chain of causes. That suits a cluster
//! that is temporarily unreachable, but at a first start it hides the problem: a wrong address, or a cluster that is
//! not running.

use foretell_ports::Error;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::io::ErrorKind;
use std::net::Ipv6Addr;
use std::time::Duration;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

/// Time limit for resolving a name, and for connecting.
const CONNECT: Duration = Duration::from_secs(5);

/// Retry if none of the nodes of a URL accepts a connection, with the cause for each. `disk:` URLs, and URLs that are
/// not of a cluster, pass: the code that opens them reports what is wrong.
pub(super) async fn check(url: &str) -> Result<(), Error> {
    let (operation, nodes, port) = match url.split_once("://") {
        Some(("kafka", rest)) => ("reach kafka", rest, 9092),
        Some(("cassandra", rest)) => ("reach cassandra", rest, 9042),
        _ => return Ok(()),
    };
    let nodes = nodes.split('/').next().unwrap_or_default().split(',').filter(|node| !node.is_empty());
    let mut attempts: FuturesUnordered<_> = nodes.map(|node| connect(with_port(node, port))).collect();
    let mut causes = Vec::new();
    while let Some(attempt) = attempts.next().await {
        match attempt {
            Ok(()) => return Ok(()),
            Err(cause) => causes.push(cause),
        }
    }
    causes.sort();
    if causes.is_empty() { Ok(()) } else { Err(Error::retry(operation, causes.join("; "))) }
}

/// The address of a node, with the default port if it names none.
fn with_port(node: &str, port: u16) -> String {
    let is_bare_ipv6 = node.parse::<Ipv6Addr>().is_ok();
    let has_port = !is_bare_ipv6 && node.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    match (has_port, is_bare_ipv6) {
        (true, _) => node.to_owned(),
        (false, true) => format!("[{node}]:{port}"),
        (false, false) => format!("{node}:{port}"),
    }
}

/// Connects to any address of a node; the error contains the node and the cause at the last address.
async fn connect(node: String) -> Result<(), String> {
    let addresses = match timeout(CONNECT, lookup_host(node.clone())).await {
        Ok(Ok(addresses)) => addresses,
        Ok(Err(cause)) => return Err(format!("{node}: {cause}")),
        Err(_) => return Err(format!("the name of {node} was not resolved within {} s", CONNECT.as_secs())),
    };
    // In parallel: an address that drops packets, as a broken IPv6 does, must not use up the time of the others.
    let mut attempts: FuturesUnordered<_> =
        addresses.map(|address| timeout(CONNECT, TcpStream::connect(address))).collect();
    let mut last = format!("{node} has no address");
    while let Some(attempt) = attempts.next().await {
        last = match attempt {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(cause)) if cause.kind() == ErrorKind::ConnectionRefused => format!("nothing listens at {node}"),
            Ok(Err(cause)) => format!("{node}: {cause}"),
            Err(_) => format!("{node} does not answer within {} s", CONNECT.as_secs()),
        };
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use foretell_ports::Kind;
    use tokio::net::TcpListener;

    #[test]
    fn a_node_has_the_port_that_it_names_or_that_of_its_kind() {
        for (node, address) in [
            ("a", "a:9092"),
            ("a:1", "a:1"),
            ("192.0.2.1", "192.0.2.1:9092"),
            ("::1", "[::1]:9092"),
            ("[::1]", "[::1]:9092"),
            ("[::1]:1", "[::1]:1"),
        ] {
            assert_eq!(with_port(node, 9092), address);
        }
    }

    #[tokio::test]
    async fn one_node_that_takes_a_connection_is_enough_and_else_each_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap();
        for url in [format!("kafka://127.0.0.1:1,{open}"), format!("cassandra://{open}/foretell")] {
            assert!(check(&url).await.is_ok(), "{url}");
        }
        for url in ["disk:./data", "disk:a://b", "kafka://", "nats://127.0.0.1:1"] {
            assert!(check(url).await.is_ok(), "{url} is for what opens it");
        }
        let error = check("kafka://127.0.0.1:1,127.0.0.1:2").await.unwrap_err();
        assert_eq!(error.kind, Kind::Retry);
        for words in ["cannot reach kafka", "nothing listens at 127.0.0.1:1", "nothing listens at 127.0.0.1:2"] {
            assert!(error.to_string().contains(words), "{error}");
        }
        let error = check("cassandra://127.0.0.1:1/foretell").await.unwrap_err().to_string();
        assert_eq!(error, "cannot reach cassandra: nothing listens at 127.0.0.1:1");
    }
}
