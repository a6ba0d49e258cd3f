//! Raw flags of `ottla serve`, built from the table of [`super::settings`]; nothing is interpreted here.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::settings::{Kind, SETTINGS, variable};

/// What stood on the command line.
#[derive(Clone, Debug, Default)]
pub struct RawServe {
    /// The table's settings that were given, by key.
    pub values: BTreeMap<&'static str, String>,
    /// `--set KEY=VALUE`, in order.
    pub set: Vec<String>,
    /// `--config FILE`.
    pub config: Option<PathBuf>,
    /// `--print-config`.
    pub print_config: bool,
    /// `--json`, for `--print-config`.
    pub json: bool,
}

impl Args for RawServe {
    fn augment_args(mut command: Command) -> Command {
        for setting in SETTINGS {
            let help = format!("{} [env: {}]{}", setting.help, variable(setting.key), default_text(setting.default));
            let arg = Arg::new(setting.key)
                .long(setting.key)
                .value_name(setting.value_name)
                .help(help)
                .help_heading(setting.heading);
            let arg = match setting.kind {
                Kind::Text | Kind::Number => arg,
                Kind::Switch | Kind::SwitchOn | Kind::OptionalNumber => {
                    arg.num_args(0..=1).require_equals(true).default_missing_value("true")
                }
            };
            command = command.arg(arg);
            if setting.kind == Kind::SwitchOn {
                let (id, help) = (negation(setting.key), format!("The same as --{}=false.", setting.key));
                let arg = Arg::new(id).long(id).action(ArgAction::SetTrue).conflicts_with(setting.key);
                command = command.arg(arg.help(help).help_heading(setting.heading));
            }
        }
        command
            .arg(
                Arg::new("set")
                    .long("set")
                    .value_name("KEY=VALUE")
                    .action(ArgAction::Append)
                    .help("A broker config under Kafka's name, such as num.partitions=3; may be repeated [env: OTTLA_SET, separated by `;`]"),
            )
            .arg(
                Arg::new("config")
                    .long("config")
                    .value_name("FILE")
                    .value_parser(clap::value_parser!(PathBuf))
                    .help("A TOML file with these settings by their names and broker configs in [set] [env: OTTLA_CONFIG]"),
            )
            .arg(
                Arg::new("print-config")
                    .long("print-config")
                    .action(ArgAction::SetTrue)
                    .help("Print every setting with its source and exit"),
            )
            .arg(
                Arg::new("json")
                    .long("json")
                    .action(ArgAction::SetTrue)
                    .requires("print-config")
                    .help("Print it as JSON"),
            )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for RawServe {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut raw = RawServe::default();
        raw.update_from_arg_matches(matches)?;
        Ok(raw)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for setting in SETTINGS {
            if let Some(value) = matches.get_one::<String>(setting.key) {
                self.values.insert(setting.key, value.clone());
            }
            if setting.kind == Kind::SwitchOn && matches.get_flag(negation(setting.key)) {
                self.values.insert(setting.key, "false".into());
            }
        }
        self.set.extend(matches.get_many::<String>("set").into_iter().flatten().cloned());
        self.config = matches.get_one::<PathBuf>("config").cloned().or(self.config.take());
        self.print_config |= matches.get_flag("print-config");
        self.json |= matches.get_flag("json");
        Ok(())
    }
}

/// The switches that are on by default have their negations here, since clap wants names that live for ever.
fn negation(key: &'static str) -> &'static str {
    match key {
        "pin" => "no-pin",
        "huge-pages" => "no-huge-pages",
        _ => unreachable!("a switch that is on by default needs the name of its negation"),
    }
}

fn default_text(default: Option<&str>) -> String {
    default.map(|text| format!(" [default: {text}]")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<RawServe, clap::Error> {
        let command = RawServe::augment_args(Command::new("serve").no_binary_name(true));
        RawServe::from_arg_matches(&command.try_get_matches_from(args)?)
    }

    #[test]
    fn the_table_makes_a_valid_command_line() {
        RawServe::augment_args(Command::new("serve")).debug_assert();
        let raw = parse(&["--shards", "3", "--no-pin", "--ring-sqpoll", "--set", "a=b", "--set", "c=d"]).unwrap();
        assert_eq!(raw.values["shards"], "3");
        assert_eq!(raw.values["pin"], "false");
        assert_eq!(raw.values["ring-sqpoll"], "true");
        assert_eq!(raw.set, ["a=b", "c=d"]);
        assert_eq!(parse(&["--ring-sqpoll=50"]).unwrap().values["ring-sqpoll"], "50");
        assert!(parse(&["--pin", "--no-pin"]).is_err());
        assert!(parse(&["--json"]).is_err());
    }
}
