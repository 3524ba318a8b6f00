//! The part of D-Bus that one query needs (D-Bus Specification 0.43): authentication by user
//! number, two method calls, and the reply to the second. Pure.

/// The end of the authentication.
pub(super) const BEGIN: &[u8] = b"BEGIN\r\n";

/// Serial number of the call whose reply is awaited.
const WANTED: u32 = 2;
/// Maximum size of a message; those of systemd are much smaller.
const MOST: usize = 64 * 1024;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;

/// `AUTH EXTERNAL` with the number of the user in decimal, as hexadecimal ASCII.
pub(super) fn authentication(user: u32) -> Vec<u8> {
    let digits: String = user.to_string().bytes().map(|digit| format!("{digit:02x}")).collect();
    format!("\0AUTH EXTERNAL {digits}\r\n").into_bytes()
}

/// Whether the server accepted the authentication; `false` while its line is incomplete.
pub(super) fn is_authenticated(received: &[u8]) -> Result<bool, &'static str> {
    match (received.ends_with(b"\r\n"), received.starts_with(b"OK")) {
        (false, _) => Ok(false),
        (true, true) => Ok(true),
        (true, false) => Err("authentication refused"),
    }
}

/// The first call on a bus.
pub(super) fn hello() -> Vec<u8> {
    let bus = "org.freedesktop.DBus";
    call(1, "/org/freedesktop/DBus", bus, "Hello", bus, &[])
}

/// `Get` of the property `SystemState`.
pub(super) fn get_system_state() -> Vec<u8> {
    let systemd = "org.freedesktop.systemd1";
    let arguments = ["org.freedesktop.systemd1.Manager", "SystemState"];
    let properties = "org.freedesktop.DBus.Properties";
    call(WANTED, "/org/freedesktop/systemd1", properties, "Get", systemd, &arguments)
}

fn call(
    serial: u32,
    path: &str,
    interface: &str,
    member: &str,
    destination: &str,
    arguments: &[&str],
) -> Vec<u8> {
    let mut body = Vec::new();
    for argument in arguments {
        put_text(&mut body, argument);
    }
    let mut fields = Vec::new();
    for (code, signature, text) in
        [(1, b'o', path), (2, b's', interface), (3, b's', member), (6, b's', destination)]
    {
        pad(&mut fields, 8);
        fields.extend([code, 1, signature, 0]);
        put_text(&mut fields, text);
    }
    if !arguments.is_empty() {
        pad(&mut fields, 8);
        let signature = "s".repeat(arguments.len());
        fields.extend([8, 1, b'g', 0, u8::try_from(signature.len()).unwrap_or(0)]);
        fields.extend(signature.bytes().chain([0]));
    }
    // Little endian, a method call, no flags, version 1.
    let mut message = vec![b'l', 1, 0, 1];
    for number in [length(&body), serial, length(&fields)] {
        message.extend(number.to_le_bytes());
    }
    message.extend(fields);
    pad(&mut message, 8);
    message.extend(body);
    message
}

fn put_text(to: &mut Vec<u8>, text: &str) {
    pad(to, 4);
    to.extend(length(text.as_bytes()).to_le_bytes());
    to.extend(text.bytes().chain([0]));
}

fn pad(to: &mut Vec<u8>, to_multiple_of: usize) {
    to.resize(to.len().next_multiple_of(to_multiple_of), 0);
}

fn length(octets: &[u8]) -> u32 {
    u32::try_from(octets.len()).unwrap_or(u32::MAX)
}

/// Removes complete messages from `received`, up to the awaited reply.
pub(super) fn system_state(received: &mut Vec<u8>) -> Result<Option<String>, &'static str> {
    while let Some(message) = split(received)? {
        let (kind, fields, body) = message;
        if reply_to(&fields) != Some(WANTED) {
            continue;
        }
        return match kind {
            METHOD_RETURN => variant_of_text(&body).map(Some).ok_or("no text in the reply"),
            ERROR => Err("refused"),
            _ => continue,
        };
    }
    Ok(None)
}

/// Kind, header fields and body of a message.
type Message = (u8, Vec<u8>, Vec<u8>);

fn split(received: &mut Vec<u8>) -> Result<Option<Message>, &'static str> {
    let Some(head) = received.first_chunk::<16>() else { return Ok(None) };
    if (head[0], head[3]) != (b'l', 1) {
        return Err("not D-Bus as we know it");
    }
    let (kind, fields) = (head[1], number(received, 12).unwrap_or(0) as usize);
    let body = number(received, 4).unwrap_or(0) as usize;
    if fields > MOST || body > MOST {
        return Err("longer than any reply");
    }
    let start = (16 + fields).next_multiple_of(8);
    if received.len() < start + body {
        return Ok(None);
    }
    let rest = received.split_off(start + body);
    let whole = std::mem::replace(received, rest);
    Ok(Some((kind, whole[16..16 + fields].to_vec(), whole[start..].to_vec())))
}

/// The field `REPLY_SERIAL`, whose code is 5 and whose type is `u`.
fn reply_to(fields: &[u8]) -> Option<u32> {
    // Each field begins at a multiple of 8, and this one has 8 octets.
    let found = fields.chunks(8).find(|chunk| chunk.starts_with(&[5, 1, b'u', 0]))?;
    number(found, 4)
}

/// The text in a variant: its signature precedes it.
fn variant_of_text(body: &[u8]) -> Option<String> {
    let text = body.strip_prefix(&[1, b's', 0, 0])?;
    let len = number(text, 0)? as usize;
    String::from_utf8(text.get(4..4_usize.checked_add(len)?)?.to_vec()).ok()
}

fn number(octets: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*octets.get(at..)?.first_chunk()?))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    // Made by jeepney 0.9, another implementation.
    const HELLO: &str = "6c01000100000000010000006d00000001016f00150000002f6f72672f667265656465736b746f702f4442757300000002017300140000006f72672e667265656465736b746f702e4442757300000000030173000500000048656c6c6f00000006017300140000006f72672e667265656465736b746f702e4442757300000000";
    const CALL: &str = "6c01000138000000020000009000000001016f00190000002f6f72672f667265656465736b746f702f73797374656d643100000000000000020173001f0000006f72672e667265656465736b746f702e444275732e50726f70657274696573000301730003000000476574000000000006017300180000006f72672e667265656465736b746f702e73797374656d643100000000000000000801670002737300200000006f72672e667265656465736b746f702e73797374656d64312e4d616e61676572000000000b00000053797374656d537461746500";
    const HELLO_REPLY: &str =
        "6c0200010a000000010000000f00000005017500010000000801670001730000050000003a312e343200";
    const REPLY: &str = "6c02000111000000070000001f000000050175000200000007017300040000003a312e30000000000801670001760000017300000800000073746f7070696e6700";
    const REFUSED: &str = "6c03000107000000080000003f00000004017300270000006f72672e667265656465736b746f702e444275732e4572726f722e41636365737344656e6965640005017500020000000801670001730000020000006e6f00";

    fn octets(hex: &str) -> Vec<u8> {
        let pairs = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
        pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
    }

    /// What a bus sends for both calls.
    pub(crate) fn replies(state: &str) -> Vec<u8> {
        let mut reply = octets(REPLY);
        reply.truncate(reply.len() - "stopping\0".len() - 4);
        put_text(&mut reply, state);
        let body = reply.len() - 48;
        reply[4] = u8::try_from(body).unwrap();
        [octets(HELLO_REPLY), reply].concat()
    }

    #[test]
    fn calls_are_those_of_another_implementation() {
        assert_eq!(hello(), octets(HELLO));
        assert_eq!(get_system_state(), octets(CALL));
        assert_eq!(authentication(0), b"\0AUTH EXTERNAL 30\r\n");
        assert_eq!(authentication(1000), b"\0AUTH EXTERNAL 31303030\r\n");
    }

    #[test]
    fn the_reply_is_found_behind_others_however_it_is_cut() {
        let all = [octets(HELLO_REPLY), octets(REPLY)].concat();
        assert_eq!(system_state(&mut all.clone()), Ok(Some("stopping".into())));
        for cut in 0..all.len() {
            assert_eq!(system_state(&mut all[..cut].to_vec()), Ok(None), "{cut}");
        }
        assert_eq!(system_state(&mut replies("running")), Ok(Some("running".into())));
        assert_eq!(system_state(&mut octets(REFUSED)), Err("refused"));
        assert!(system_state(&mut b"HTTP/1.1 400 Bad Request".to_vec()).is_err());
        let mut long = octets(REPLY);
        long[6] = 0xff;
        assert!(system_state(&mut long).is_err());
        assert_eq!(is_authenticated(b"REJECTED EXTERNAL\r\n"), Err("authentication refused"));
    }

    proptest::proptest! {
        #[test]
        fn no_octets_make_it_panic(noise in proptest::collection::vec(0..255_u8, 0..200), at in 0..60_usize) {
            let mut changed = octets(REPLY);
            for (i, octet) in noise.iter().enumerate() {
                if let Some(place) = changed.get_mut(at + i * 7) {
                    *place = *octet;
                }
            }
            let _ = system_state(&mut changed);
            let _ = system_state(&mut noise.clone());
        }
    }
}
