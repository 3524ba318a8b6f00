//! Packets against rules as the kernel lists them.

use super::*;
use crate::{
    net::Prefix,
    netlink::decode::messages,
    nft::{
        chain::{is_inside, is_interface, verdict as write_verdict},
        wire::{Attributes, NEW_RULE, REGISTER, body},
    },
};

type Fill<'a> = &'a dyn Fn(&mut Attributes<'_>);

fn listed(chain: &str, fill: Fill<'_>) -> Vec<u8> {
    written(NEW_RULE, |m| {
        m.text(NFTA_RULE_TABLE, "filter");
        m.text(NFTA_RULE_CHAIN, chain);
        m.nested(NFTA_RULE_EXPRESSIONS, |list| fill(list));
    })
}

/// The attributes of a message.
fn written(kind: u16, fill: impl FnOnce(&mut Attributes<'_>)) -> Vec<u8> {
    let mut encoder = Encoder::new(1);
    request(&mut encoder, NFPROTO_IPV4, kind, 0, fill);
    messages(encoder.bytes()).next().map(|m| body(&m).to_vec()).unwrap()
}

fn forward(policy: u32, rules: &[(&str, Fill<'_>)]) -> Chains {
    let chain = written(GET_CHAIN, |m| {
        m.text(NFTA_CHAIN_TABLE, "filter");
        m.text(NFTA_CHAIN_NAME, "FORWARD");
        m.nested(NFTA_CHAIN_HOOK, |hook| hook.number(NFTA_HOOK_HOOKNUM, NF_INET_FORWARD));
        m.number(NFTA_CHAIN_POLICY, policy);
        m.text(NFTA_CHAIN_TYPE, "filter");
    });
    let rules: Vec<_> = rules.iter().map(|(chain, fill)| listed(chain, fill)).collect();
    let mut chains = Chains::new(NFPROTO_IPV4, &[chain]);
    read(&mut chains, &rules);
    chains
}

/// Adds what is to be read, from a kernel that lists all rules of a table. How many chains it was.
fn read(chains: &mut Chains, rules: &[Vec<u8>]) -> usize {
    for n in 0.. {
        let Some(name) = chains.unread().cloned() else { return n };
        chains.add_rules(name, rules.to_vec());
    }
    unreachable!("an endless list")
}

fn by_rule() -> Dropper {
    Dropper { rule: Some(1), ..by_policy() }
}

fn by_policy() -> Dropper {
    Dropper { family: "ip", table: "filter".into(), chain: "FORWARD".into(), rule: None }
}

fn packet() -> Forwarded {
    Forwarded {
        source: "172.20.0.2".parse().unwrap(),
        destination: "10.9.0.5".parse().unwrap(),
        arrives_on: "br-pod".into(),
        leaves_by: "eth0".into(),
        is_reply: false,
    }
}

fn p(text: &str) -> Prefix {
    text.parse().unwrap()
}

/// `-m conntrack --ctstate` with these bits.
fn conntrack(list: &mut Attributes<'_>, states: u16) {
    let mut info = vec![0; 156];
    info[146..148].copy_from_slice(&1_u16.to_ne_bytes());
    info[150..152].copy_from_slice(&states.to_ne_bytes());
    list.expression("match", |e| {
        e.text(NFTA_MATCH_NAME, "conntrack");
        e.number(2, 3);
        e.octets(NFTA_MATCH_INFO, &info);
    });
}

#[test]
fn the_first_rule_that_surely_matches_decides_else_the_policy() {
    const ACCEPT: u32 = NF_ACCEPT;
    let to = |prefix: &'static str, code| {
        move |l: &mut Attributes<'_>| {
            is_inside(l, p(prefix), 1);
            l.expression("counter", |_| {});
            write_verdict(l, code, None);
        }
    };
    let from = |prefix: &'static str, code| {
        move |l: &mut Attributes<'_>| {
            is_inside(l, p(prefix), 0);
            write_verdict(l, code, None);
        }
    };
    let leaves = |name: &'static str, code| {
        move |l: &mut Attributes<'_>| {
            is_interface(l, META_OIFNAME, name);
            write_verdict(l, code, None);
        }
    };
    let jump = |chain: &'static str| move |l: &mut Attributes<'_>| write_verdict(l, NFT_JUMP, Some(chain));
    let unknown = |l: &mut Attributes<'_>| {
        l.expression("match", |e| e.text(NFTA_MATCH_NAME, "tcp"));
        write_verdict(l, ACCEPT, None);
    };
    let state = |states: u16, code| {
        move |l: &mut Attributes<'_>| {
            conntrack(l, states);
            write_verdict(l, code, None);
        }
    };
    let (ours, other) = (from("172.20.0.0/16", ACCEPT), from("172.21.0.0/16", ACCEPT));
    let (dropped, past) = (to("10.9.0.0/24", NF_DROP), to("10.9.1.0/24", NF_DROP));
    let (by_policy, by_rule) = (by_policy(), by_rule());
    assert_eq!(by_policy.to_string(), "the policy of FORWARD in table filter");
    assert_eq!(by_rule.to_string(), "rule 1 of FORWARD in table filter");
    let (sure, perhaps) = (Some(true), Some(false));
    let (returns, open, closed) =
        (leaves("eth0", NFT_RETURN), leaves("eth0", ACCEPT), leaves("eth1", ACCEPT));
    let (established, new) = (state(6, ACCEPT), state(8, ACCEPT));
    let into = jump("OURS");
    let (by_policy, by_rule) = (&by_policy, &by_rule);
    let cases: Vec<(&str, Chains, Option<bool>, &Dropper)> = vec![
        ("nothing drops", forward(ACCEPT, &[]), None, by_rule),
        ("the policy", forward(NF_DROP, &[]), sure, by_policy),
        ("a rule", forward(ACCEPT, &[("FORWARD", &dropped)]), sure, by_rule),
        ("a rule for others", forward(ACCEPT, &[("FORWARD", &past)]), None, by_rule),
        ("accepted by source", forward(NF_DROP, &[("FORWARD", &ours)]), None, by_rule),
        ("another source", forward(NF_DROP, &[("FORWARD", &other)]), sure, by_policy),
        ("accepted in a chain", forward(NF_DROP, &[("FORWARD", &into), ("OURS", &ours)]), None, by_rule),
        (
            "returned from it",
            forward(NF_DROP, &[("FORWARD", &into), ("OURS", &returns), ("OURS", &ours)]),
            sure,
            by_policy,
        ),
        ("by interface", forward(NF_DROP, &[("FORWARD", &open)]), None, by_rule),
        ("by another interface", forward(NF_DROP, &[("FORWARD", &closed)]), sure, by_policy),
        ("what cannot be judged", forward(NF_DROP, &[("FORWARD", &unknown)]), perhaps, by_policy),
        ("replies alone", forward(NF_DROP, &[("FORWARD", &established)]), sure, by_policy),
        ("new connections", forward(NF_DROP, &[("FORWARD", &new)]), None, by_rule),
        ("a loop", forward(NF_DROP, &[("FORWARD", &into), ("OURS", &into)]), sure, by_policy),
    ];
    for (name, chains, certain, by) in cases {
        let expected =
            certain.map_or(Verdict::Accepted, |certain| Verdict::Dropped { by: by.clone(), certain });
        assert_eq!(chains.verdict(&packet()), expected, "{name}");
    }
}

#[test]
fn a_reply_belongs_to_an_established_connection() {
    let by_iptables = |states: u16| {
        move |l: &mut Attributes<'_>| {
            conntrack(l, states);
            write_verdict(l, NF_ACCEPT, None);
        }
    };
    // `ct state`, as nft writes it.
    let by_nft = |states: u32| {
        move |l: &mut Attributes<'_>| {
            l.expression("ct", |e| {
                e.number(NFTA_CT_DREG, REGISTER);
                e.number(NFTA_CT_KEY, CT_STATE);
            });
            l.expression("bitwise", |e| {
                e.number(NFTA_BITWISE_SREG, REGISTER);
                e.number(NFTA_BITWISE_DREG, REGISTER);
                e.number(NFTA_BITWISE_LEN, 4);
                e.nested(NFTA_BITWISE_MASK, |data| data.octets(NFTA_DATA_VALUE, &states.to_ne_bytes()));
                e.nested(NFTA_BITWISE_XOR, |data| data.octets(NFTA_DATA_VALUE, &[0; 4]));
            });
            l.expression("cmp", |e| {
                e.number(NFTA_CMP_SREG, REGISTER);
                e.number(NFTA_CMP_OP, CMP_NEQ);
                e.nested(NFTA_CMP_DATA, |data| data.octets(NFTA_DATA_VALUE, &[0; 4]));
            });
            write_verdict(l, NF_ACCEPT, None);
        }
    };
    let dropped = Verdict::Dropped { by: by_policy(), certain: true };
    let reply = Forwarded { is_reply: true, ..packet() };
    let (established, new) = ((by_iptables(6), by_nft(6)), (by_iptables(8), by_nft(8)));
    let judged = |rule: Fill<'_>| {
        let chains = forward(NF_DROP, &[("FORWARD", rule)]);
        (chains.verdict(&packet()), chains.verdict(&reply))
    };
    for rule in [&established.0 as Fill<'_>, &established.1] {
        assert_eq!(judged(rule), (dropped.clone(), Verdict::Accepted));
    }
    for rule in [&new.0 as Fill<'_>, &new.1] {
        assert_eq!(judged(rule), (Verdict::Accepted, dropped.clone()));
    }
}

/// An element of a set: its key, whether it ends a range, and the verdict of a map.
type Element<'a> = (&'a [u8], bool, Option<u32>);

/// Chains whose only rule looks `load` up in a set or map.
fn looks_up(load: Fill<'_>, map: bool, inverted: bool, set: &[Element<'_>]) -> Chains {
    let rule = listed("FORWARD", &|l| {
        load(l);
        l.expression("lookup", |e| {
            e.text(NFTA_LOOKUP_SET, "__set0");
            e.number(NFTA_LOOKUP_SREG, REGISTER);
            if map {
                e.number(NFTA_LOOKUP_DREG, 0);
            }
            e.number(NFTA_LOOKUP_FLAGS, u32::from(inverted));
        });
        if !map {
            write_verdict(l, NF_ACCEPT, None);
        }
    });
    assert_eq!(sets(std::slice::from_ref(&rule)), [("filter".into(), "__set0".into())].into());
    let mut list = Encoder::new(1);
    request(&mut list, NFPROTO_IPV4, 12, 0, |m| {
        m.nested(NFTA_SET_ELEM_LIST_ELEMENTS, |all| {
            for (key, ends, verdict) in set {
                all.nested(NFTA_LIST_ELEM, |element| {
                    element.nested(NFTA_SET_ELEM_KEY, |data| data.octets(NFTA_DATA_VALUE, key));
                    if let Some(code) = verdict {
                        element.nested(NFTA_SET_ELEM_DATA, |data| {
                            data.nested(NFTA_DATA_VERDICT, |v| v.number(NFTA_VERDICT_CODE, *code))
                        });
                    }
                    element.number(NFTA_SET_ELEM_FLAGS, u32::from(*ends));
                });
            }
        });
    });
    let set = elements(&[body(&messages(list.bytes()).next().unwrap()).to_vec()]);
    let mut chains = forward(NF_DROP, &[]);
    chains.rules.insert(("filter".into(), "FORWARD".into()), vec![rule]);
    chains.sets.insert(("filter".into(), "__set0".into()), set);
    chains
}

#[test]
fn sets_that_are_written_in_rules_are_judged() {
    let state = |l: &mut Attributes<'_>| {
        l.expression("ct", |e| {
            e.number(NFTA_CT_DREG, REGISTER);
            e.number(NFTA_CT_KEY, CT_STATE);
        });
    };
    let source = |l: &mut Attributes<'_>| l.payload(PAYLOAD_NETWORK, 12, 4);
    let (established, new) = (2_u32.to_ne_bytes(), 8_u32.to_ne_bytes());
    let replies: [Element<'_>; 1] = [(&established, false, None)];
    let both: [Element<'_>; 2] = [(&established, false, None), (&new, false, None)];
    let range: [Element<'_>; 2] = [(&[172, 20, 0, 0], false, None), (&[172, 21, 0, 0], true, None)];
    let before: [Element<'_>; 2] = [(&[172, 16, 0, 0], false, None), (&[172, 20, 0, 0], true, None)];
    let adjacent = [before, range].concat();
    let vmap: [Element<'_>; 2] = [(&established, false, Some(NF_ACCEPT)), (&new, false, Some(NF_DROP))];
    let accepts: [Element<'_>; 1] = [(&new, false, Some(NF_ACCEPT))];
    let other: [Element<'_>; 1] = [(&[8], false, None)];
    let dropped = |by, certain| Verdict::Dropped { by, certain };
    let cases: [(&str, Fill<'_>, bool, bool, &[Element<'_>], Verdict); 10] = [
        ("ct state { established }", &state, false, false, &replies, dropped(by_policy(), true)),
        ("ct state { established, new }", &state, false, false, &both, Verdict::Accepted),
        ("ct state != { established }", &state, false, true, &replies, Verdict::Accepted),
        ("ip saddr in its range", &source, false, false, &range, Verdict::Accepted),
        ("ip saddr after a range", &source, false, false, &before, dropped(by_policy(), true)),
        ("ip saddr in the second of two ranges", &source, false, false, &adjacent, Verdict::Accepted),
        ("a verdict of a map", &state, true, false, &vmap, dropped(by_rule(), true)),
        ("accepted by a map", &state, true, false, &accepts, Verdict::Accepted),
        ("not in the map", &source, true, false, &[], dropped(by_policy(), true)),
        ("a key of another type", &state, false, false, &other, dropped(by_policy(), false)),
    ];
    for (name, load, map, inverted, set, expected) in cases {
        assert_eq!(looks_up(load, map, inverted, set).verdict(&packet()), expected, "{name}");
    }
}

#[test]
fn what_is_not_known_leaves_no_certainty() {
    // Another source, but for what an unknown expression writes into the register.
    let rewritten = |l: &mut Attributes<'_>| {
        l.payload(PAYLOAD_NETWORK, 12, 4);
        l.expression("fib", |e| e.number(1, REGISTER));
        l.equals(&[172, 21, 0, 2]);
        write_verdict(l, NF_ACCEPT, None);
    };
    let queue = |l: &mut Attributes<'_>| l.expression("queue", |_| {});
    let target = |name: &'static str| {
        move |l: &mut Attributes<'_>| l.expression("target", |e| e.text(NFTA_TARGET_NAME, name))
    };
    let (nfqueue, log) = (target("NFQUEUE"), target("LOG"));
    let cases: [(&str, Fill<'_>, bool); 4] = [
        ("a register written by an unknown expression", &rewritten, false),
        ("queue", &queue, false),
        ("NFQUEUE", &nfqueue, false),
        ("LOG", &log, true),
    ];
    for (name, rule, certain) in cases {
        let expected = Verdict::Dropped { by: by_policy(), certain };
        assert_eq!(forward(NF_DROP, &[("FORWARD", rule)]).verdict(&packet()), expected, "{name}");
    }
}

#[test]
fn truncated_rules_are_survived() {
    let rule = listed("FORWARD", &|l| {
        is_inside(l, p("10.9.0.0/23"), 1);
        conntrack(l, 8);
        write_verdict(l, NF_DROP, None);
    });
    for n in 0..rule.len() {
        let cut = vec![rule[..n].to_vec()];
        let mut chains = Chains::new(NFPROTO_IPV4, &cut);
        chains.add_set(("filter".into(), "__set0".into()), &cut);
        chains.add_rules(("filter".into(), "FORWARD".into()), cut.clone());
        let _ = (chains.verdict(&packet()), sets(&cut), element_of(&cut, &[0; 4]));
    }
}

/// `jump CHAIN`, for every packet.
fn jump(chain: &'static str) -> impl Fn(&mut Attributes<'_>) {
    move |l: &mut Attributes<'_>| write_verdict(l, NFT_JUMP, Some(chain))
}

#[test]
fn only_chains_to_which_base_chains_lead_are_read() {
    let (a, b, c) = (jump("A"), jump("B"), jump("C"));
    let rules: [(&str, Fill<'_>); 6] =
        [("FORWARD", &a), ("FORWARD", &a), ("A", &b), ("B", &a), ("KUBE-SVC-1", &c), ("C", &b)];
    let rules: Vec<_> = rules.iter().map(|(chain, fill)| listed(chain, fill)).collect();
    let mut chains = forward(NF_DROP, &[]);
    assert_eq!((chains.read_count(), chains.unread()), (1, None), "an empty one");
    chains.rules.clear();
    chains.unread.insert(("filter".into(), "FORWARD".into()));
    assert_eq!(read(&mut chains, &rules), 3, "{:?}", chains.rules.keys());
}

#[test]
fn maps_lead_to_chains() {
    let state = |l: &mut Attributes<'_>| {
        l.expression("ct", |e| {
            e.number(NFTA_CT_DREG, REGISTER);
            e.number(NFTA_CT_KEY, CT_STATE);
        });
    };
    let mut list = Encoder::new(1);
    request(&mut list, NFPROTO_IPV4, 12, 0, |m| {
        m.nested(NFTA_SET_ELEM_LIST_ELEMENTS, |all| {
            all.nested(NFTA_LIST_ELEM, |element| {
                element.nested(NFTA_SET_ELEM_KEY, |data| data.octets(NFTA_DATA_VALUE, &8_u32.to_ne_bytes()));
                element.nested(NFTA_SET_ELEM_DATA, |data| {
                    data.nested(NFTA_DATA_VERDICT, |v| {
                        v.number(NFTA_VERDICT_CODE, NFT_JUMP);
                        v.text(NFTA_VERDICT_CHAIN, "NEW");
                    });
                });
            });
        });
    });
    let rule = listed("FORWARD", &|l| {
        state(l);
        l.expression("lookup", |e| {
            e.text(NFTA_LOOKUP_SET, "__map0");
            e.number(NFTA_LOOKUP_SREG, REGISTER);
            e.number(NFTA_LOOKUP_DREG, 0);
        });
    });
    let accept = |l: &mut Attributes<'_>| write_verdict(l, NF_ACCEPT, None);
    let mut chains = forward(NF_DROP, &[]);
    chains.add_set(
        ("filter".into(), "__map0".into()),
        &[body(&messages(list.bytes()).next().unwrap()).to_vec()],
    );
    chains.add_rules(("filter".into(), "FORWARD".into()), vec![rule]);
    assert_eq!(chains.unread(), Some(&("filter".into(), "NEW".into())));
    read(&mut chains, &[listed("NEW", &accept)]);
    assert_eq!(chains.verdict(&packet()), Verdict::Accepted);
}

/// Each of ten chains may jump ten times to the next one: no packet is followed on all ways.
#[test]
fn a_walk_ends_after_so_many_rules() {
    const NAMES: [&str; 11] = ["FORWARD", "c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8", "c9", "c10"];
    let rules: Vec<_> = NAMES
        .windows(2)
        .flat_map(|pair| {
            let fill = |l: &mut Attributes<'_>| {
                l.expression("match", |e| e.text(NFTA_MATCH_NAME, "tcp"));
                write_verdict(l, NFT_JUMP, Some(pair[1]));
            };
            std::iter::repeat_n(listed(pair[0], &fill), 10).collect::<Vec<_>>()
        })
        .collect();
    let mut chains = forward(NF_DROP, &[]);
    chains.rules.clear();
    chains.unread.insert(("filter".into(), "FORWARD".into()));
    assert_eq!(read(&mut chains, &rules), 11);
    // One that was not looked at may accept.
    assert_eq!(chains.verdict(&packet()), Verdict::Dropped { by: by_policy(), certain: false });
}
