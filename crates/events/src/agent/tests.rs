//! Real user agents, and the parts that are read from them.

use super::*;
use proptest::prelude::*;

const IPHONE: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) \
                      Version/17.1 Mobile/15E148 Safari/604.1";

#[test]
fn common_strings_are_read() {
    let chrome = "AppleWebKit/537.36 (KHTML, like Gecko) Chrome";
    for (text, browser, os, device) in [
        (IPHONE.to_owned(), "Mobile Safari 17.1", "iOS 17.1", "mobile"),
        (
            format!("Mozilla/5.0 (Linux; Android 10; K) {chrome}/146.0.0.0 Mobile Safari/537.36"),
            "Chrome Mobile 146.0.0",
            "Android 10",
            "mobile",
        ),
        (
            format!("Mozilla/5.0 (Linux; Android 13; SM-X906C) {chrome}/120.0.6099.144 Safari/537.36"),
            "Chrome 120.0.6099",
            "Android 13",
            "tablet",
        ),
        (
            "Mozilla/5.0 (iPad; CPU OS 13_4 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/13.1 \
             Mobile/15E148 Safari/604.1"
                .to_owned(),
            "Mobile Safari 13.1",
            "iOS 13.4",
            "tablet",
        ),
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Firefox/145.0".to_owned(),
            "Firefox 145.0",
            "Windows 10",
            "desktop",
        ),
        (
            format!("Mozilla/5.0 (Windows NT 10.0; Win64; x64) {chrome}/120.0.0.0 Safari/537.36 Edg/120.0.2210.91"),
            "Edge 120.0.2210",
            "Windows 10",
            "desktop",
        ),
        (
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.1 \
             Safari/605.1.15"
                .to_owned(),
            "Safari 17.1",
            "Mac OS X 10.15.7",
            "desktop",
        ),
        (
            format!("Mozilla/5.0 (X11; Linux x86_64) {chrome}/146.0.0.0 Safari/537.36"),
            "Chrome 146.0.0",
            "Linux",
            "desktop",
        ),
        ("curl/8.5.0".to_owned(), "curl 8.5.0", "", "bot"),
        ("python-requests/2.32.3".to_owned(), "Python Requests 2.32", "", "bot"),
        ("Go-http-client/2.0".to_owned(), "Go-http-client 2.0", "", "bot"),
        (
            "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)".to_owned(),
            "Googlebot 2.1",
            "",
            "bot",
        ),
        ("Dalvik/2.1.0 (Linux; U; Android 14; Pixel 8 Build/UQ1A)".to_owned(), "Android 14", "Android 14", "mobile"),
        ("Mozilla/5.0 (SMART-TV; Linux; Tizen 7.0) AppleWebKit/537.36".to_owned(), "", "Tizen 7.0", ""),
        ("garbage".to_owned(), "", "", ""),
        (String::new(), "", "", ""),
        ("\u{0}\u{1}\u{7f}".to_owned(), "", "", ""),
    ] {
        let agent = read(&text);
        let read = (agent.browser.as_deref(), agent.os.as_deref(), agent.device.map(DeviceType::name));
        let read = (read.0.unwrap_or_default(), read.1.unwrap_or_default(), read.2.unwrap_or_default());
        assert_eq!(read, (browser, os, device), "{text}");
    }
}

#[test]
fn programs_are_told_from_people() {
    let headless =
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/120.0 Safari/1";
    for (user_agent, scripted) in [
        (Some(""), true),
        (Some("  "), true),
        (Some("curl/8.5.0"), true),
        (Some("Wget/1.21"), true),
        (Some("python-requests/2.32.3"), true),
        (Some("Python-urllib/3.12"), true),
        (Some("Go-http-client/1.1"), true),
        (Some("Java/17.0.1"), true),
        (Some("node-fetch/1.0 (+https://github.com/bitinn/node-fetch)"), true),
        (Some("PostmanRuntime/7.36.0"), true),
        (Some("Scrapy/2.11 (+https://scrapy.org)"), true),
        (Some(headless), true),
        (Some("okhttp/4.12.0"), false), // Apps of people send it.
        (Some("Javascriptly/1.0"), false),
        (Some(IPHONE), false),
        (Some("garbage"), false),
        (None, false),
    ] {
        let mut attempt = Attempt::from_ip([192, 0, 2, 1].into());
        attempt.user_agent = user_agent.map(str::to_owned);
        assert_eq!(is_scripted(&attempt), scripted, "{user_agent:?}");
    }
    let mut said = Attempt::from_ip([192, 0, 2, 1].into());
    said.device_type = Some("bot".into());
    assert!(is_scripted(&said), "the event's own word counts");
}

fn is_scripted_as(user_agent: &str) -> bool {
    let mut attempt = Attempt::from_ip([192, 0, 2, 1].into());
    attempt.user_agent = Some(user_agent.to_owned());
    is_scripted(&attempt)
}

#[test]
fn libraries_and_tools_are_scripts_by_the_names_that_they_send_by_default() {
    for user_agent in [
        "GuzzleHttp/7",
        "RestSharp/110.2.0.0",
        "Faraday v2.7.0",
        "k6/0.49.0 (https://k6.io/)",
        "node",
        "undici",
        "Bun/1.1.0",
        "Deno/1.40.0",
        "insomnia/8.6.1",
        "colly - https://github.com/gocolly/colly",
        "axios/1.6.2",
        "got (https://github.com/sindresorhus/got)",
        "node-superagent/8.0.9",
        "Apache-HttpClient/4.5.13 (Java/17.0.1)",
        "Java-http-client/21.0.2",
        "Jakarta Commons-HttpClient/3.1",
        "ReactorNetty/1.1.14",
        "Ktor client",
        "Python/3.11 aiohttp/3.9.1",
        "python-httpx/0.26.0",
        "urllib3/2.0",
        "libwww-perl/6.67",
        "rest-client/2.1.0 (linux x86_64) ruby/3.2.2p53",
        "Typhoeus - https://github.com/typhoeus/typhoeus",
        "HTTPoison",
        "hackney/1.20.1",
        "reqwest/0.11.23",
        "ureq/2.9.1",
        "go-resty/2.11.0 (https://github.com/go-resty/resty)",
        "Symfony HttpClient (Curl)",
        "PHP/8.2",
        "HTTPie/3.2.2",
        "Thunder Client (https://www.thunderclient.com)",
        "R (4.3.1 x86_64-pc-linux-gnu x86_64 linux-gnu)",
        "libcurl/7.88.1 r-curl/5.1.0 httr/1.4.7",
        "Apache-JMeter/5.6",
        "ApacheBench/2.3",
        "hey/0.0.1",
        "wrk/4.2.0",
        "Gatling/3.9",
        "Playwright/1.40.0 (x64; ubuntu 22.04) node/18.19",
        "sqlmap/1.7#stable (https://sqlmap.org)",
        "Mozilla/5.0 (Windows NT; Windows NT 10.0; en-US) WindowsPowerShell/5.1.19041.1",
        "Mozilla/5.0 (Windows NT 10.0; Microsoft Windows 10.0.19045; en-US) PowerShell/7.4.0",
        "Mozilla/4.0 (compatible; Win32; WinHttp.WinHttpRequest.5)",
        "Mozilla/3.0 (compatible; Indy Library)",
        "Mozilla/4.0 (compatible; MSIE 6.0; MS Web Services Client Protocol 4.0.30319.42000)",
        "Mozilla/5.0 (Unknown; Linux x86_64) AppleWebKit/538.1 (KHTML, like Gecko) PhantomJS/2.1.1 Safari/538.1",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Cypress/13.6 Chrome/118 Safari/537.36",
        "Mozilla/5.0 (linux) AppleWebKit/537.36 (KHTML, like Gecko) jsdom/22.1.0",
        "Mozilla/5.0 (compatible; Nmap Scripting Engine; https://nmap.org/book/nse.html)",
        "Grafana k6/1.0.0",
        "Apache-HttpCore/5.2 (Java/17)",
        "Apache CXF 3.4.4",
        "Axis/1.4",
        "Axis2",
        "JAX-WS RI 2.2.9-b130926.1035 svn-revision#5f6196f2b90e9460065a4c2f4e30e065b245e51e",
        "Synapse-PT-HttpComponents-NIO",
        "Manticore 0.9.0",
        "cpprestsdk/2.10.18",
        "Chilkat/1.0.0 (+http://www.chilkatsoft.com/ChilkatHttpUA.asp)",
        "Mozilla/4.0 (compatible; Synapse)",
        "Mozilla/4.0 (compatible; Clever Internet Suite)",
        "Mozilla/4.0 (compatible; ICS)",
        "Wolfram HTTPClient 13.1",
        "MATLAB R2021a",
        "Furl::HTTP/3.14",
        "SOAP::Lite/Perl/1.27",
        "minreq/2.0",
        "Nodejs",
        "ky",
        "Next.js Middleware",
        "npm/10.2.4 node/v20.11.0 linux x64 workspaces/false",
        "make-fetch-happen/13.0.0 (+npm/make-fetch-happen)",
        "pip/23.3.1",
        "aws-cli/2.15.0 Python/3.11.6 Linux/6.1 exe/x86_64",
        "Boto3/1.34.0 md/Botocore#1.34.0",
        "Apache-Maven/3.9.6 (Java 17.0.9; Linux 6.1)",
        "Gradle/8.5 (Linux;6.1;amd64) (Oracle Corporation;17.0.9;17.0.9+9)",
        "HttpREPL/3.1.0",
        "NuSOAP/0.9.5 (1.123)",
        "Composer/2.6.6 (Linux; 6.1; PHP 8.2.13)",
        "ServiceStack .NET Client 8.00",
        "kube-probe/1.28",
        "HashiCorp Terraform/1.6.6 (+https://www.terraform.io)",
        "Prometheus/2.48.1",
        "rclone/v1.65.0",
        "pg_net/0.7.1",
        "ESP8266HTTPClient",
        "ArduinoHttpClient/0.4.0",
        "zig/0.11.0 (std.http)",
        "Drakma/2.0.8 (SBCL 2.3.7; Linux; 6.1; http://weitz.de/drakma/)",
        "Zinc HTTP Components 1.0 (Pharo/11.0)",
        "SAP NetWeaver Application Server (1.0;753)",
        "dotnet-httpie/0.7.0",
        "httperf/0.9.0",
        "fortio.org/fortio-1.63.0",
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessEdg/120.0.0.0 Safari/537.36",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/534.34 (KHTML, like Gecko) CasperJS/1.1.4+PhantomJS/1.9.8 Safari/534.34",
        "feroxbuster/2.10.1",
        "dirsearch/0.4.3",
    ] {
        assert!(is_scripted_as(user_agent), "{user_agent}");
        assert!(is_scripted_as(&user_agent.to_uppercase()) || user_agent.contains("://"), "{user_agent} in capitals");
    }
}

/// Everything that people log in with: browsers, browser windows in apps, and apps, including those that name only the
/// library that they are built with.
#[test]
fn nothing_that_people_log_in_with_is_a_script() {
    let (kit, gecko) =
        ("AppleWebKit/537.36 (KHTML, like Gecko)", "Mozilla/5.0 (iPhone; CPU iPhone OS 17_1 like Mac OS X)");
    let ios = format!("{gecko} AppleWebKit/605.1.15 (KHTML, like Gecko)");
    let view = "Mozilla/5.0 (Linux; Android 14; SM-S911B Build/UP1A.231005.007; wv)";
    for user_agent in [
        format!("Mozilla/5.0 (Windows NT 10.0; Win64; x64) {kit} Chrome/146.0.0.0 Safari/537.36"),
        format!("Mozilla/5.0 (Windows NT 10.0; Win64; x64) {kit} Chrome/120.0.0.0 Safari/537.36 Edg/120.0.2210.91"),
        format!("Mozilla/5.0 (Windows NT 10.0; Win64; x64) {kit} Chrome/119.0.0.0 Safari/537.36 OPR/105.0.0.0"),
        format!("Mozilla/5.0 (Windows NT 10.0; Win64; x64) {kit} Chrome/118.0.0.0 YaBrowser/23.11.0 Yowser/2.5 Safari/537.36"),
        format!("Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) {kit} Chrome/120.0.0.0 Safari/537.36"),
        format!("Mozilla/5.0 (X11; Linux x86_64) {kit} Chrome/120.0.0.0 Safari/537.36 Vivaldi/6.5.3206.39"),
        "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:121.0) Gecko/20100101 Firefox/121.0".into(),
        "Mozilla/5.0 (Android 14; Mobile; rv:121.0) Gecko/121.0 Firefox/121.0".into(),
        "Mozilla/5.0 (Windows NT 10.0; WOW64; Trident/7.0; rv:11.0) like Gecko".into(),
        "Mozilla/5.0 (compatible; MSIE 9.0; Windows NT 6.1; Trident/5.0)".into(),
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.1 Safari/605.1.15"
            .into(),
        format!("Mozilla/5.0 (Linux; Android 13; SM-A536B) {kit} SamsungBrowser/23.0 Chrome/115.0.0.0 Mobile Safari/537.36"),
        format!("Mozilla/5.0 (Linux; Android 11; KFTRWI) {kit} Silk/108.4.6 like Chrome/108.0.5359.160 Safari/537.36"),
        format!("Mozilla/5.0 (Linux; Android 9; CUBOT X18 Plus) {kit} Chrome/120.0.0.0 Mobile Safari/537.36"),
        format!("Mozilla/5.0 (Linux; Android 12; en; M2007J20CG) {kit} UCBrowser/13.4.0.1306 Mobile Safari/537.36"),
        "Opera/9.80 (Android; Opera Mini/36.2.2254/119.132; U; id) Presto/2.12.423 Version/12.16".into(),
        "Mozilla/5.0 (Mobile; Nokia_8110_4G; rv:48.0) Gecko/48.0 Firefox/48.0 KAIOS/2.5".into(),
        "Mozilla/5.0 (PlayStation; PlayStation 5/6.00) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/16 Safari/605.1.15".into(),
        format!("{ios} Version/17.1 Mobile/15E148 Safari/604.1"),
        format!("{ios} CriOS/120.0.6099.119 Mobile/15E148 Safari/604.1"),
        format!("{ios} FxiOS/121.0 Mobile/15E148 Safari/605.1.15"),
        format!("{ios} GSA/294.0.590048842 Mobile/15E148 Safari/604.1"),
        format!("{ios} Version/17.0 DuckDuckGo/7 Mobile/15E148 Safari/605.1.15"),
        format!("{ios} Mobile/15E148 [FBAN/FBIOS;FBAV/440.0.0.36.115;FBDV/iPhone14,5;FBMD/iPhone;FBSN/iOS;FBSV/17.1]"),
        format!("{view} {kit} Version/4.0 Chrome/120.0.6099.43 Mobile Safari/537.36"),
        format!("{view} {kit} Version/4.0 Chrome/120.0 Mobile Safari/537.36 Instagram 311.0.0.32.118 Android (34/14; 425dpi)"),
        format!("{view} {kit} Version/4.0 Chrome/119.0 Mobile Safari/537.36 MicroMessenger/8.0.43.2480(0x28002B37) WeChat/arm64"),
        format!("Mozilla/5.0 (Windows NT 10.0; Win64; x64) {kit} Slack/4.35.131 Chrome/118.0 Electron/27.1.3 Safari/537.36"),
        format!("Mozilla/5.0 (Windows NT 10.0; Win64; x64) {kit} Code/1.85.1 Chrome/114.0 Electron/25.9.7 Safari/537.36"),
        "Microsoft Office/16.0 (Windows NT 10.0; Microsoft Outlook 16.0.17126; Pro)".into(),
        "Outlook-iOS/724.3.prod.iphone (4.2401.0)".into(),
        "Lynx/2.8.9rel.1 libwww-FM/2.14 SSL-MM/1.4.1 GNUTLS/3.6.13".into(),
        "w3m/0.5.3+git20190105".into(),
        "okhttp/4.12.0".into(),
        "Acme/5.1.0 okhttp/4.9.3".into(),
        "Dart/3.1 (dart:io)".into(),
        "Dalvik/2.1.0 (Linux; U; Android 14; Pixel 8 Build/UQ1A.240105.004)".into(),
        "Acme/5.1 CFNetwork/1410.0.3 Darwin/22.6.0".into(),
        "Acme/5.1 (com.acme.app; build:1; iOS 17.1.0) Alamofire/5.8.0".into(),
        "Acme/5.1 (iPhone; iOS 17.1; Scale/3.00)".into(),
        "com.acme.app/12 (Android 13; Pixel 7)".into(),
        "UnityPlayer/2021.3.5f1 (UnityWebRequest/1.0, libcurl/7.80.0-DEV)".into(),
        "Acme/1.2.3".into(),
        "Mozilla/5.0".into(),
        // Apps whose names are those of libraries and tools.
        "Mint/6.9 CFNetwork/1410.0.3 Darwin/22.6.0".into(),
        "HEY/1.5 CFNetwork/1496.0.7 Darwin/23.5.0".into(),
        "Finch/3.7 CFNetwork/1410.0.3 Darwin/22.6.0".into(),
        "Tesla/4.28 CFNetwork/1410.0.3 Darwin/22.6.0".into(),
        "Tesla/4.28.1-2345 (Linux; U; Android 14; Pixel 8)".into(),
        "Curb/7.5 (com.ridecharge.curb; build:1; iOS 17.1.0) Alamofire/5.8.0".into(),
        "Julia/2.1 (iPad; iOS 17.1; Scale/2.00)".into(),
        "Crystal/2.0 (iPhone; iOS 17.1; Scale/3.00)".into(),
        "Julia/3.0 okhttp/4.12.0".into(),
        "Node/1.1 (iPhone13,2; iOS 16.4.1)".into(),
        "Insomnia/3.2 CFNetwork/1410.0.3 Darwin/22.6.0".into(),
        "Crystal/2.0 (com.example.crystal; build:7; Android 13) okhttp/4.9.3".into(),
        format!("{ios} Mobile/15E148 Devin's App"),
        "Amazon CloudFront".into(),
    ] {
        assert!(!is_scripted_as(&user_agent), "{user_agent}");
    }
}

#[test]
fn what_an_event_says_itself_stays() {
    let mut attempt = Attempt::from_ip([192, 0, 2, 1].into());
    complete(&mut attempt);
    assert_eq!(attempt, Attempt::from_ip([192, 0, 2, 1].into()), "without a user agent there is nothing to read");
    attempt.user_agent = Some(IPHONE.into());
    attempt.os = Some("mine".into());
    complete(&mut attempt);
    let parts = (attempt.browser.as_deref(), attempt.os.as_deref(), attempt.device_type.as_deref());
    assert_eq!(parts, (Some("Mobile Safari 17.1"), Some("mine"), Some("mobile")));
    let before = attempt.clone();
    complete(&mut attempt);
    assert_eq!(attempt, before, "and a second time changes nothing");
}

#[test]
fn whatever_is_behind_the_first_kilobyte_is_not_read() {
    let long = format!("{}{IPHONE}", " ".repeat(USER_AGENT_KEPT_BYTES));
    assert_eq!(*read(&long), Agent::default());
    let cut_short = format!("{IPHONE}{}", "é".repeat(32 * 1024));
    assert_eq!(read(&cut_short).browser.as_deref(), Some("Mobile Safari 17.1"));
    let endless = format!("Mozilla/5.0 {}/1.0", "Robot".repeat(200));
    let label = read(&endless).browser.clone().unwrap_or_default();
    assert!(label.len() <= LABEL_BYTES_MAX, "labels are parts of keys: {} bytes", label.len());
}

#[test]
fn the_rules_have_a_name() {
    assert!(RULES_COMPILED.is_some());
    let (version, digest) = rules().split_once('.').unwrap();
    assert_eq!((version, digest.len()), (READING_VERSION.to_string().as_str(), 16));
}

proptest! {
    #[test]
    fn any_string_is_read_and_remembered_as_it_was_read(text in ".{0,300}", words in "[ -~]{0,1100}") {
        for text in [text, words] {
            let agent = parse(&text);
            prop_assert_eq!(&*read(&text), &agent);
            prop_assert_eq!(&*read(&text), &agent);
            for label in [agent.browser, agent.os].into_iter().flatten() {
                prop_assert!((1..=LABEL_BYTES_MAX).contains(&label.len()));
            }
        }
    }
}
