//! Every code block of the pages has a mark, and a test that runs or reads blocks with that mark.

use std::{fs, path::Path, process::Command};

use routelet::config::io::load;

use crate::{common::Block, common::all, common::marked, common::pages, name, root};

/// What happens to blocks by their marks: run or read by the test in that file, or not run for a
/// reason.
const MARKS: &[(&str, Use)] = &[
    ("toml", Use::By("tests/docs/blocks.rs", "each_configuration_passes_check")),
    ("usage", Use::By("tests/docs/blocks.rs", "each_usage_names_options_that_exist")),
    ("sh tests", Use::By("tests/docs/blocks.rs", "each_command_that_runs_tests_names_what_exists")),
    (
        "sh image",
        Use::By("tests/docs/blocks.rs", "each_image_is_of_this_version_and_from_a_file_that_exists"),
    ),
    ("ini", Use::By("tests/docs/blocks.rs", "each_drop_in_has_sections_and_keys")),
    ("sh lab", Use::By("tests/daemon/documented.rs", "each_block_for_the_lab_runs")),
    ("sh host", Use::By("tests/daemon/documented.rs", "each_block_for_a_host_runs")),
    ("sh install", Use::By("tests/daemon/documented.rs", "each_block_that_installs_runs")),
    ("output explain", Use::By("tests/docs/blocks.rs", "the_output_of_explain_has_its_steps")),
    ("sh helm", Use::By("tests/deploy/documented.rs", "each_block_for_helm_runs")),
    ("sh kubectl", Use::By("tests/kube/documented.rs", "each_block_for_kubectl_runs")),
    ("yaml objects", Use::By("tests/kube/documented.rs", "each_object_is_accepted")),
    ("sh docker", Use::By("tests/docker/documented.rs", "each_block_for_docker_runs")),
    ("json docker", Use::By("tests/docker/documented.rs", "each_file_of_the_engine_has_keys_that_it_knows")),
    ("frr", Use::By("tests/daemon/switch.rs", "the_frr_example_accepts_a_rack_of_nodes")),
    ("frr-one", Use::By("tests/daemon/switch.rs", "the_frr_example_for_one_host_accepts_it")),
    ("frr-bfd", Use::By("tests/daemon/switch.rs", "the_examples_with_bfd_watch_their_host")),
    ("frr-unnumbered", Use::By("tests/daemon/switch.rs", "the_unnumbered_frr_example_accepts_a_host")),
    ("frr-docker", Use::By("tests/daemon/documented.rs", "the_switches_of_the_tutorials_accept_their_hosts")),
    ("frr-nodes", Use::By("tests/daemon/documented.rs", "the_switches_of_the_tutorials_accept_their_hosts")),
    ("bird", Use::By("tests/daemon/switch.rs", "the_bird_example_accepts_a_rack_of_nodes")),
    ("bird-bfd", Use::By("tests/daemon/switch.rs", "the_examples_with_bfd_watch_their_host")),
    ("bird-unnumbered", Use::By("tests/daemon/switch.rs", "the_unnumbered_bird_example_accepts_a_host")),
    ("eos", Use::Not("a switch of Arista is not to be had here")),
    ("nx-os", Use::Not("a switch of Cisco is not to be had here")),
    ("junos", Use::Not("a router of Juniper is not to be had here")),
    ("sh remote", Use::Not("it needs a second machine, or a pod")),
    ("sh others", Use::Not("it needs a cluster with Calico, MetalLB or Cilium")),
    ("text", Use::Not("a drawing")),
];

enum Use {
    By(&'static str, &'static str),
    Not(&'static str),
}

#[test]
fn every_block_has_a_mark_that_a_test_knows() {
    let unknown: Vec<_> = all()
        .into_iter()
        .filter(|block| !MARKS.iter().any(|(mark, _)| *mark == block.mark))
        .map(|block| format!("{}: ```{}", block.place, block.mark))
        .collect();
    assert!(unknown.is_empty(), "mark these as in tests/docs/blocks.rs:\n{}", unknown.join("\n"));
    for (mark, used) in MARKS {
        marked(mark);
        match used {
            Use::By(file, test) => {
                let code = fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
                assert!(code.contains(&format!("fn {test}()")), "{file} has no {test}");
            }
            Use::Not(why) => assert!(!why.is_empty(), "{mark}"),
        }
    }
}

/// A block by indentation has no mark.
#[test]
fn no_block_is_made_by_indentation() {
    let mut found = Vec::new();
    for page in pages() {
        let (mut fenced, mut before) = (false, "");
        for (number, line) in fs::read_to_string(&page).unwrap().lines().enumerate() {
            fenced ^= line.trim_start().starts_with("```");
            let is_code = line.starts_with("    ") && (before.is_empty() || before.starts_with("    "));
            if is_code && !fenced && !line.trim_start().starts_with(['-', '`']) {
                found.push(format!("{}:{}", name(&page), number + 1));
            }
            if !(line.is_empty() && before.starts_with("    ")) {
                before = line;
            }
        }
    }
    assert!(found.is_empty(), "use fences, which have marks: {found:?}");
}

/// On a bare host or under Kubernetes, as a whole file.
#[test]
fn each_configuration_passes_check() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("routelet.toml");
    for Block { place, text, .. } in marked("toml") {
        fs::write(&file, &text).unwrap();
        let loaded = [false, true].map(|under_kubernetes| load(Some(&file), under_kubernetes));
        if let [Err(bare), Err(cluster)] = loaded {
            panic!("{place}: on a host: {bare}\nunder Kubernetes: {cluster}");
        }
    }
}

#[test]
fn each_usage_names_options_that_exist() {
    let roots = routelet::cli::reference::commands();
    for Block { place, text, .. } in marked("usage") {
        for line in text.lines().filter(|l| !l.starts_with("       ")) {
            let root = roots.iter().find(|r| line.starts_with(r.get_bin_name().unwrap_or(r.get_name())));
            let root = root.unwrap_or_else(|| panic!("{place}: {line}"));
            let name = root.get_bin_name().unwrap_or(root.get_name());
            let (mut command, mut is_path) = (root, true);
            for word in line[name.len()..].split_whitespace() {
                if let Some(sub) = command.find_subcommand(word).filter(|_| is_path) {
                    command = sub;
                    continue;
                }
                is_path = false;
                let Some(at) = word.find("--") else { continue };
                let option = word[at + 2..].split(['=', ']', '[', '>']).next().unwrap_or_default();
                let known = command.get_arguments().any(|a| a.get_long() == Some(option));
                assert!(known, "{place}: {} has no --{option}", command.get_name());
            }
        }
    }
}

/// Suites, tests and programs that CONTRIBUTING.md and docs/performance.md name.
#[test]
fn each_command_that_runs_tests_names_what_exists() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    for Block { place, text, .. } in marked("sh tests") {
        for line in
            text.lines().map(|l| l.split('#').next().unwrap_or_default().trim()).filter(|l| !l.is_empty())
        {
            let words: Vec<_> =
                line.split_whitespace().skip_while(|w| *w == "sudo" || w.contains('=')).collect();
            let program = words[0];
            assert!(
                program == "cargo" || program.starts_with("target/") || root().join(program).is_file(),
                "{place}: no {program}"
            );
            if let Some(at) = words.iter().position(|w| *w == "--test") {
                let suite = words[at + 1];
                let path = |end: &str| root().join(format!("tests/{suite}{end}")).is_file();
                assert!(
                    path(".rs") || path("/main.rs") || manifest.contains(&format!("\"{suite}\"")),
                    "{place}: {suite}"
                );
            }
            for test in words.iter().skip(1).filter(|w| w.contains('_') && !w.starts_with('-')) {
                let code = fs::read_dir(root().join("tests"))
                    .unwrap()
                    .flat_map(|e| crate::files_of(&e.unwrap().path()));
                let has = |file: &Path| fs::read_to_string(file).is_ok_and(|t| t.contains(*test));
                assert!(code.into_iter().any(|file| has(&file)), "{place}: no test {test}");
            }
        }
    }
}

#[test]
fn each_image_is_of_this_version_and_from_a_file_that_exists() {
    let version = concat!("routelet:", env!("CARGO_PKG_VERSION"));
    for Block { place, text, .. } in marked("sh image") {
        assert!(text.contains(version), "{place}: an image of another version");
        for word in text.split_whitespace().filter(|w| w.starts_with("routelet:")) {
            assert_eq!(word, version, "{place}");
        }
        for word in text.split_whitespace().filter(|w| w.starts_with("deploy/")) {
            assert!(root().join(word).exists(), "{place}: no {word}");
        }
        let parsed = Command::new("bash").args(["-n", "-c", &text]).status().unwrap();
        assert!(parsed.success() && root().join("Dockerfile").is_file(), "{place}");
    }
}

#[test]
fn each_drop_in_has_sections_and_keys() {
    for Block { place, text, .. } in marked("ini") {
        let good = |l: &str| l.is_empty() || l.starts_with('[') && l.ends_with(']') || l.contains('=');
        assert!(text.starts_with('[') && text.lines().all(good), "{place}");
    }
}

/// The rows of the example, by the names of steps and results that `explain` prints.
#[test]
fn the_output_of_explain_has_its_steps() {
    let schema =
        routelet::cli::reference::schemas().into_iter().find(|s| s.file == "explain").unwrap().schema;
    let schema = schema.as_value().to_string();
    for Block { place, text, .. } in marked("output explain") {
        let rows =
            text.lines().filter(|l| ["ok ", "note ", "warning ", "stop "].iter().any(|r| l.starts_with(r)));
        let steps: Vec<_> = rows.map(|row| row.split_whitespace().nth(1).unwrap()).collect();
        assert!(steps.len() > 5, "{place}: {steps:?}");
        for step in steps {
            assert!(schema.contains(&format!("\"{step}\"")), "{place}: no step {step}");
        }
    }
}
