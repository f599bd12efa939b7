//! The URLs of log and store, validated when the settings are read, before any network access.

/// Rejects a URL that is neither a directory nor a Kafka cluster.
pub(super) fn log(url: &str) -> Result<(), String> {
    match url.strip_prefix("kafka://") {
        Some(brokers) => nodes(brokers.trim_end_matches('/'), url, "kafka://host:port,host:port"),
        None => directory(url, "kafka://"),
    }
}

/// Rejects a URL that is neither a directory nor a keyspace of a Cassandra cluster.
pub(super) fn store(url: &str) -> Result<(), String> {
    let form = "cassandra://host:port,host:port/keyspace";
    match url.strip_prefix("cassandra://").map(|rest| rest.split_once('/')) {
        Some(Some((hosts, keyspace))) if !keyspace.is_empty() => nodes(hosts, url, form),
        Some(_) => Err(format!(
            "{url} is not of the form {form}: it has no keyspace, as in {}/foretell",
            url.trim_end_matches('/')
        )),
        None => directory(url, "cassandra://"),
    }
}

fn directory(url: &str, cluster: &str) -> Result<(), String> {
    match url.strip_prefix("disk:") {
        Some("") => Err("disk: needs a directory, as in disk:./data".into()),
        Some(_) => Ok(()),
        None if url.contains("://") => Err(format!("{url:?} begins with neither disk: nor {cluster}")),
        None => Err(format!("{url:?} begins with neither disk: nor {cluster}; a directory is written disk:{url}")),
    }
}

fn nodes(list: &str, url: &str, form: &str) -> Result<(), String> {
    if list.contains('@') {
        // The URL is not shown: it may contain a password.
        return Err(format!("write it as {form}; user and password have their own settings"));
    }
    list.split(',').try_for_each(node).map_err(|fault| format!("{url} is not of the form {form}: {fault}"))
}

/// Rejects a node that is neither `host` nor `host:port`; an IPv6 address may be in brackets.
fn node(node: &str) -> Result<(), String> {
    let (host, port) = match node.rsplit_once(':') {
        Some((host, port)) if host.ends_with(']') || !host.contains(':') => (host, Some(port)),
        _ => (node, None),
    };
    let is_bare_ipv6 = host.parse::<std::net::Ipv6Addr>().is_ok();
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '/') {
        return Err(format!("{node:?} has no host"));
    }
    if host.contains(':') && !host.ends_with(']') && !is_bare_ipv6 {
        return Err(format!("{node:?} is not host:port"));
    }
    match port.map(str::parse::<u16>) {
        Some(Ok(0) | Err(_)) => Err(format!("{node:?} has no port from 1 to 65535")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_directories_or_clusters() {
        for url in ["disk:./data", "disk:/a b", "kafka://a", "kafka://a:9092/", "kafka://a:1,[::1]:2,::1,192.0.2.1"] {
            assert_eq!(log(url), Ok(()), "{url}");
        }
        for url in ["disk:./data", "cassandra://a/k", "cassandra://a:9042,b:9043/foretell"] {
            assert_eq!(store(url), Ok(()), "{url}");
        }
        for (url, said) in [
            ("./data", "a directory is written disk:./data"),
            ("http://a:9092", "neither disk: nor kafka://"),
            ("disk:", "needs a directory"),
            ("kafka://", "\"\" has no host"),
            ("kafka://a:1,,b:2", "\"\" has no host"),
            ("kafka://a:b:c", "\"a:b:c\" is not host:port"),
            ("kafka://a:x", "no port from 1 to 65535"),
            ("kafka://a:0", "no port from 1 to 65535"),
            ("kafka://a b:1", "no host"),
            ("kafka://a:1/b", "no port"),
            ("kafka://user:secret@a:1", "have their own settings"),
        ] {
            let refused = log(url).unwrap_err();
            assert!(refused.contains(said) && !refused.contains("secret"), "{url}: {refused}");
        }
        for (url, said) in [
            ("cassandra://a:9042", "as in cassandra://a:9042/foretell"),
            ("cassandra://a:9042/", "as in cassandra://a:9042/foretell"),
            ("cassandra:///k", "\"\" has no host"),
            ("kafka://a:1", "neither disk: nor cassandra://"),
        ] {
            let refused = store(url).unwrap_err();
            assert!(refused.contains(said), "{url}: {refused}");
        }
    }
}
