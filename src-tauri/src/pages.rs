//! Restricts the windows to Hearth's own pages.

use tauri::{Runtime, Url, webview::NewWindowFeatures, webview::NewWindowResponse};

/// Whether a window may navigate to this address.
pub(crate) fn is_ours(url: &Url) -> bool {
    match url.scheme() {
        "tauri" => url.host_str() == Some("localhost"),
        // On Windows the pages have this host, which no DNS server resolves.
        "http" | "https" => cfg!(windows) && url.host_str() == Some("tauri.localhost"),
        _ => false,
    }
}

/// Denies every new window.
pub(crate) fn no_new_window<R: Runtime>(_: Url, _: NewWindowFeatures) -> NewWindowResponse<R> {
    NewWindowResponse::Deny
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn ours(url: &str) -> bool {
        is_ours(&Url::parse(url).unwrap())
    }

    #[test]
    fn a_window_goes_nowhere_but_to_our_own_pages() {
        assert!(ours("tauri://localhost/index.html"));
        assert_eq!(ours("http://tauri.localhost/index.html"), cfg!(windows));
        for elsewhere in [
            "https://example.com/",
            "http://localhost/",
            "http://127.0.0.1:6001/",
            "tauri://example.com/",
            "http://tauri.localhost.example.com/",
            "file:///etc/passwd",
            "data:text/html,x",
            "javascript:alert(1)",
            "about:blank",
        ] {
            assert!(!ours(elsewhere), "{elsewhere}");
        }
    }

    #[test]
    fn the_policy_allows_our_own_files_and_the_door_to_the_app_only() {
        let config: Value = serde_json::from_str(include_str!("../tauri.conf.json")).unwrap();
        let security = &config["app"]["security"];
        let policy = security["csp"].as_object().unwrap();
        assert_eq!(policy["default-src"], "'none'");
        assert_eq!(policy["connect-src"], "ipc: http://ipc.localhost");
        for (what, from) in policy {
            let from = from.as_str().unwrap();
            assert!(
                !from.contains("unsafe") && !from.contains('*'),
                "{what}: {from}"
            );
        }
        assert_eq!(config["app"]["withGlobalTauri"], false);
        assert_eq!(
            security["capabilities"],
            serde_json::json!(["main", "overlay"])
        );
    }

    #[test]
    fn no_capability_reaches_beyond_its_own_window() {
        for (label, json) in [
            ("main", include_str!("../capabilities/main.json")),
            ("overlay", include_str!("../capabilities/overlay.json")),
        ] {
            let capability: Value = serde_json::from_str(json).unwrap();
            assert_eq!(capability["windows"], serde_json::json!([label]));
            assert!(capability.get("remote").is_none());
            for permission in capability["permissions"].as_array().unwrap() {
                let permission = permission.as_str().unwrap();
                assert!(
                    !permission.contains("default"),
                    "{label}: {permission} is a whole set"
                );
            }
        }
        assert!(!include_str!("../capabilities/overlay.json").contains("allow-act"));
    }
}
