//! Fuzz targets: each function accepts any octets and panics if an invariant is violated. The
//! binaries beside this file run them under libFuzzer, `tests/fuzz.rs` runs them over the corpus
//! and on mutations of it.

#[path = "host.rs"]
mod host;
#[path = "session.rs"]
mod whole;

use bytes::{Bytes, BytesMut};
use routelet::{
    bgp::wire::{
        Shape,
        attr::Attrs,
        framing::{self, Kind},
        notification::Notification,
        open::Open,
        pack::Packer,
        refresh::Refresh,
        update::{Decoder, Nlri, NlriBlock, Update},
    },
    config::{ParseContext, PasswordFileError, effective, parse},
    convert::{ConvertError, Format, Input},
    net::PerFamily,
};

pub(crate) use host::{advertisement, conflist, control, netlink, object, request, state};
pub(crate) use whole::session;

/// A whole stream: the first octet chooses the shape of the session, the rest is received.
pub(crate) fn message(data: &[u8]) {
    let Some((choice, stream)) = data.split_first() else { return };
    let shape = shape(*choice);
    let mut decoder = Decoder::new(shape);
    let mut stream = BytesMut::from(stream);
    while let Ok(Some(frame)) = framing::split(&mut stream, shape.extended_messages) {
        match frame.kind {
            Kind::Open => drop(Open::decode(&frame.body)),
            Kind::Update => drop(decoder.decode(&frame.body)),
            Kind::Notification => notification(&frame.body),
            Kind::Keepalive => assert!(frame.body.is_empty()),
            Kind::RouteRefresh => drop(Refresh::decode(&frame.body, choice & 1 == 0)),
        }
    }
}

fn notification(body: &Bytes) {
    let n = Notification::decode(body);
    assert!(n.to_string().len() < 3000);
    assert!(n.text().is_none_or(|t| t.len() <= 255));
}

/// A valid OPEN is the same after encoding and decoding it again.
pub(crate) fn open(data: &[u8]) {
    let Ok(open) = Open::decode(data) else { return };
    assert!(open.capabilities.iter().all(|c| !c.to_string().is_empty()));
    let mut out = BytesMut::new();
    open.encode(&mut out);
    if out.len() <= framing::MAX_MESSAGE {
        let frame = framing::split(&mut out, false).expect("our own header").expect("a whole message");
        assert_eq!(Open::decode(&frame.body).as_ref(), Ok(&open));
    }
}

/// Valid UPDATEs are the same after encoding and decoding them again, the second time from the
/// cache.
pub(crate) fn update(data: &[u8]) {
    let Some((choice, body)) = data.split_first() else { return };
    let shape = shape(*choice);
    let body = Bytes::copy_from_slice(body);
    let mut decoder = Decoder::new(shape);
    let first = decoder.decode(&body);
    assert_eq!(first, decoder.decode(&body));
    let Ok(update) = first else { return };
    for (attrs, block) in &update.advertised {
        assert!(attrs.as_path.length() <= attrs.as_path.asns().count());
        again(shape, block, Some(attrs));
    }
    update.withdrawn.iter().for_each(|block| again(shape, block, None));
}

fn again(shape: Shape, block: &NlriBlock, attrs: Option<&Attrs>) {
    let list: Vec<Nlri> = block.iter().collect();
    assert!(!list.is_empty() && list.iter().all(|n| n.prefix.family() == block.family));
    let mut out = BytesMut::new();
    let mut packer = Packer::new(&shape, &mut out);
    match attrs {
        Some(attrs) if packer.advertise(attrs, block.family, list.iter().copied()).is_err() => return,
        Some(_) => {}
        None => packer.withdraw(block.family, list.iter().copied()),
    }
    let mut decoder = Decoder::new(shape);
    let mut back = Vec::new();
    while let Some(frame) = framing::split(&mut out, shape.extended_messages).expect("our own header") {
        let update = decoder.decode(&frame.body).expect("our own message");
        // Numbers merged from two-octet and AS4_PATH fields may exceed the limit the second time.
        if attrs.is_some_and(|a| a.as_path.asns().count() > 1000) {
            return;
        }
        assert_eq!(update.flaws, []);
        back.extend(nlri(&update, attrs));
    }
    assert_eq!(back, list);
}

fn nlri(update: &Update, attrs: Option<&Attrs>) -> Vec<Nlri> {
    match (attrs, &update.advertised[..], &update.withdrawn[..]) {
        (Some(attrs), [(got, block)], []) => {
            assert_eq!(**got, passed_on(attrs));
            block.iter().collect()
        }
        (None, [], [block]) => block.iter().collect(),
        _ => panic!("{update:?}"),
    }
}

/// Unknown attributes are advertised with the Partial bit.
fn passed_on(attrs: &Attrs) -> Attrs {
    let mut attrs = attrs.clone();
    if let Some(extra) = &mut attrs.extra {
        extra.unknown.iter_mut().for_each(|a| a.flags |= 0x20);
    }
    attrs
}

/// A configuration: errors have a place in the file and a text; a valid one can be shown.
pub(crate) fn config(data: &[u8]) {
    let Some((choice, text)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let read_password = |path: &std::path::Path| match path.to_str() {
        Some("/good") => Ok("secret".into()),
        _ => Err(PasswordFileError::InObject),
    };
    match parse(text, &ParseContext { kubernetes: choice & 1 == 1, read_password: &read_password }) {
        Ok((config, _)) => {
            assert_eq!(config, config.clone());
            let shown = effective(&config, None, []);
            toml::to_string(&shown).expect("`show config` prints it");
        }
        Err(problems) => {
            let lines = text.split('\n').count();
            assert!(!problems.is_empty());
            assert!(problems.iter().all(|p| !p.what.is_empty() && p.line <= lines), "{problems:?}");
        }
    }
}

/// Another daemon's configuration: the result is valid, or the error is one line.
pub(crate) fn convert(data: &[u8]) {
    let text = String::from_utf8_lossy(data).into_owned();
    let inputs = [Input { name: "input".to_owned(), text }];
    let of_lines = [Format::Frr, Format::Quagga, Format::Bird, Format::KubeRouter];
    for format in of_lines.into_iter().chain([Format::Calico, Format::Metallb, Format::Cilium]) {
        match routelet::convert::convert(&inputs, Some(format)) {
            Ok(report) => assert!(report.output.starts_with('#') && !report.lines.is_empty()),
            Err(ConvertError::Invalid(_)) => {}
            Err(error) => assert!(!error.to_string().contains('\n')),
        }
    }
}

/// One of 256 sessions.
fn shape(choice: u8) -> Shape {
    let bit = |n: u8| choice >> n & 1 == 1;
    Shape {
        ibgp: bit(0),
        four_octet_as: !bit(1),
        families: PerFamily::new(!bit(2), true),
        extended_next_hop: bit(3),
        extended_messages: bit(4),
        add_path_receive: PerFamily::new(bit(5), bit(6)),
        add_path_send: PerFamily::new(bit(5), bit(6)),
        first_as: bit(7).then_some(65001),
        on_host: false,
    }
}
