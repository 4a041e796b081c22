//! The README and the book in `docs/`, against the program: every command runs, every link leads
//! somewhere, every recipe passes what a change must pass, and the references name what there is.

#[path = "../common/mod.rs"]
mod common;
mod console;
mod generated;
mod pages;
mod recipes;
mod references;

/// Runs the commands of a page, each page in a test of its own.
macro_rules! run_pages {
    ($($test:ident: $page:literal;)+) => {
        /// The pages whose commands are run.
        const RUN: &[&str] = &[$($page),+];

        $(
            #[actix_rt::test]
            async fn $test() {
                console::run($page).await;
            }
        )+
    };
}

run_pages! {
    the_commands_of_the_readme_run: "README.md";
    the_commands_of_deployment_run: "docs/deployment.md";
    the_commands_of_experiments_run: "docs/experiments.md";
    the_commands_of_simulation_run: "docs/simulation.md";
    the_commands_of_external_scheduler_run: "docs/external-scheduler.md";
    the_commands_of_fleet_run: "docs/fleet.md";
    the_commands_of_functions_run: "docs/functions.md";
    the_commands_of_install_run: "docs/install.md";
    the_commands_of_learning_run: "docs/learning.md";
    the_commands_of_reliability_run: "docs/reliability.md";
    the_commands_of_run_a_node_run: "docs/run.md";
    the_commands_of_schedulers_run: "docs/schedulers.md";
    the_commands_of_security_run: "docs/security.md";
    the_commands_of_settings_run: "docs/settings.md";
    the_commands_of_troubleshooting_run: "docs/troubleshooting.md";
    the_commands_of_upgrade_run: "docs/upgrade.md";
    the_commands_of_which_scheduler_run: "docs/which-scheduler.md";
    the_commands_of_write_a_scheduler_run: "docs/write-a-scheduler.md";
}

#[test]
fn no_page_with_commands_is_left_out() {
    let with_commands = |(name, text): (String, String)| {
        pages::blocks(&text).iter().any(|block| block.language == "console").then_some(name)
    };
    let mut there: Vec<String> = pages::book().into_iter().filter_map(with_commands).collect();
    let mut run: Vec<&str> = RUN.to_vec();
    there.sort();
    run.sort_unstable();
    assert_eq!(run, there);
}
