//! A headless Chromium, controlled by the DevTools protocol over two pipes.

use std::{
    cell::RefCell,
    collections::VecDeque,
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::Path,
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use nix::{sys::stat::Mode, unistd::mkfifo};
use serde_json::{Value, json};

use super::{
    Process,
    net::{Net, Ns},
    wait_for,
};

/// How long a page or a command may take. A loaded machine starts Chromium in some ten seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// The only fonts that it finds, so that pages look alike on all machines.
const FONTS: &str = "/usr/share/fonts/truetype/dejavu";

/// A font for each family that a style sheet may name, with or without a generic one.
const FAMILIES: &str = "<alias><family>monospace</family><prefer><family>DejaVu Sans Mono</family></prefer></alias>\
    <match target=\"pattern\"><edit name=\"family\" mode=\"append_last\"><string>DejaVu Sans</string></edit></match>";

/// One browser with one tab.
pub struct Browser {
    process: Process,
    pipe: RefCell<Pipe>,
    session: String,
}

struct Pipe {
    to: File,
    from: Receiver<Value>,
    next: u64,
    /// Events that nobody has taken yet.
    events: VecDeque<Value>,
}

impl Browser {
    /// Starts it in a namespace, with a new profile.
    pub fn start(net: &Net, ns: &Ns) -> Self {
        assert!(Path::new(FONTS).exists(), "no {FONTS}: run tests/run once, it installs fonts-dejavu-core");
        let dir = net.dir().join(format!("{}-browser", ns.name));
        fs::create_dir_all(dir.join("cache")).expect("a folder");
        let fonts = format!(
            "<?xml version=\"1.0\"?><!DOCTYPE fontconfig SYSTEM \"fonts.dtd\"><fontconfig><dir>{FONTS}</dir>\
             <cachedir>{}</cachedir>{FAMILIES}</fontconfig>",
            dir.join("cache").display()
        );
        fs::write(dir.join("fonts.conf"), fonts).expect("a writable folder");
        let (to, from) = (dir.join("to"), dir.join("from"));
        for pipe in [&to, &from] {
            mkfifo(pipe, Mode::S_IRWXU).expect("a pipe");
        }
        let mut command = ns.command("sh");
        command.args(["-c", "exec chromium \"$@\" 3<\"$TO\" 4>\"$FROM\"", "sh"]).args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--disable-breakpad",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--force-device-scale-factor=1",
            "--font-render-hinting=none",
            "--hide-scrollbars",
            "--lang=en-US",
            "--remote-debugging-pipe",
        ]);
        command.arg(format!("--user-data-dir={}", dir.join("profile").display())).arg("about:blank");
        command.env("TO", &to).env("FROM", &from).env("FONTCONFIG_FILE", dir.join("fonts.conf"));
        command.env("HOME", &dir).env_remove("DBUS_SESSION_BUS_ADDRESS");
        let process = Process::start(&mut command, &dir.join("log"));
        // Each waits for the other end.
        let to = File::options().write(true).open(to).expect("the pipe to the browser");
        let from = read(File::open(from).expect("the pipe from the browser"));
        let pipe = RefCell::new(Pipe { to, from, next: 1, events: VecDeque::new() });
        let mut this = Self { process, pipe, session: String::new() };
        let target = this.command("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = this.command("Target.attachToTarget", attach);
        this.session = attached["sessionId"].as_str().expect("a session").to_owned();
        for domain in ["Page", "Runtime", "Log", "Accessibility"] {
            this.command(&format!("{domain}.enable"), json!({}));
        }
        this
    }

    /// The result of a command.
    pub fn command(&self, method: &str, params: Value) -> Value {
        let mut pipe = self.pipe.borrow_mut();
        let id = pipe.next;
        pipe.next += 1;
        let mut message = json!({ "id": id, "method": method, "params": params });
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        let sent = pipe.to.write_all(format!("{message}\0").as_bytes());
        sent.unwrap_or_else(|e| panic!("{method}: {e}:\n{}", self.process.printed()));
        let end = Instant::now() + PATIENCE;
        loop {
            let got = pipe.from.recv_timeout(end.saturating_duration_since(Instant::now()));
            let message = got.unwrap_or_else(|e| panic!("{method}: {e}:\n{}", self.process.printed()));
            if message["id"] == id {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].clone();
            }
            pipe.events.push_back(message);
        }
    }

    /// Opens an address, and returns when everything is loaded.
    pub fn open(&self, url: &str) {
        self.events();
        let opened = self.command("Page.navigate", json!({ "url": url }));
        assert!(opened.get("errorText").is_none(), "{url}: {opened}");
        self.wait_loaded();
    }

    pub fn wait_loaded(&self) {
        wait_for("the page is loaded", PATIENCE.as_secs_f64(), || {
            self.events().iter().any(|event| event["method"] == "Page.loadEventFired").then_some(())
        });
    }

    /// The events since the last call.
    pub fn events(&self) -> Vec<Value> {
        let mut pipe = self.pipe.borrow_mut();
        loop {
            match pipe.from.recv_timeout(Duration::from_millis(10)) {
                Ok(event) => pipe.events.push_back(event),
                Err(RecvTimeoutError::Timeout) => return pipe.events.drain(..).collect(),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("the browser has ended:\n{}", self.process.printed())
                }
            }
        }
    }

    /// The value of an expression on the page, a promise's when it is kept.
    pub fn evaluate(&self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let result = self.command("Runtime.evaluate", params);
        assert!(result.get("exceptionDetails").is_none(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// Presses and releases a key, such as `Tab`, with the text that it enters.
    pub fn press(&self, key: &str, code: u32, text: &str) {
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            if kind == "keyDown" && !text.is_empty() {
                event["text"] = json!(text);
            }
            self.command("Input.dispatchKeyEvent", event);
        }
    }

    /// The window, and the scheme of colors that its user prefers.
    pub fn set_window(&self, width: u32, height: u32, scheme: &str) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.command("Emulation.setDeviceMetricsOverride", size);
        let features = json!([
            { "name": "prefers-color-scheme", "value": scheme },
            { "name": "prefers-reduced-motion", "value": "reduce" },
        ]);
        self.command("Emulation.setEmulatedMedia", json!({ "media": "screen", "features": features }));
    }

    /// The window as a WebP picture, in base64.
    pub fn screenshot(&self) -> String {
        let shot = self.command("Page.captureScreenshot", json!({ "format": "webp", "quality": 80 }));
        shot["data"].as_str().expect("a picture").to_owned()
    }

    /// What the console has of errors in these events: exceptions, failed requests, violations of the
    /// content security policy.
    pub fn errors(events: &[Value]) -> Vec<String> {
        let is_error = |event: &&Value| match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => event["params"]["type"] == "error",
            Some("Log.entryAdded") => event["params"]["entry"]["level"] == "error",
            _ => false,
        };
        events.iter().filter(is_error).map(Value::to_string).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if self.process.alive() {
            // Its other processes end with it.
            self.process.signal("TERM");
            let end = Instant::now() + Duration::from_secs(10);
            while self.process.alive() && Instant::now() < end {
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// Messages are separated by an octet 0.
fn read(from: File) -> Receiver<Value> {
    let (send, receive) = channel();
    thread::spawn(move || {
        let mut from = BufReader::new(from);
        loop {
            let mut message = Vec::new();
            match from.read_until(0, &mut message) {
                Ok(1..) if message.pop() == Some(0) => {}
                _ => return,
            }
            if send.send(serde_json::from_slice(&message).expect("JSON")).is_err() {
                return;
            }
        }
    });
    receive
}
