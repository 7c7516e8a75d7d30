#include "hesspect/config/options.h"

#include <gtest/gtest.h>

#include <unistd.h>
#include <set>
#include <sstream>

#include <cstdio>
#include <fstream>

#include "hesspect/config/job_options.h"
#include "hesspect/config/launch.h"
#include "hesspect/config/service_options.h"
#include "hesspect/core/errors.h"

namespace hesspect::options_test {
namespace {

const std::vector<std::string> kAnalyze = {"analyze", "--model", "m.pt2",    "--data", "d.h5",
                                           "--loss",  "mse",     "--output", "r.h5"};

std::vector<std::string> with(std::vector<std::string> more) {
  std::vector<std::string> args = kAnalyze;
  args.insert(args.end(), more.begin(), more.end());
  return args;
}

/// The message of the UsageError, or "" where there was none.
std::string usage_error(const std::vector<std::string>& args, const Environment& environment = {}) {
  try {
    parse_command_line(args, environment);
  } catch (const UsageError& error) {
    EXPECT_EQ(error.exit_code(), ExitCode::kUsage);
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
    return error.what();
  }
  return "";
}

class IniFile {
 public:
  explicit IniFile(const std::string& text) : path_("/tmp/hesspect_options_test_" + std::to_string(getpid()) + ".ini") {
    std::ofstream(path_) << text;
  }
  ~IniFile() { std::remove(path_.c_str()); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

TEST(Options, DefaultsAndCommandLine) {
  const Invocation run = parse_command_line(with({"--top=4", "--ignore-index", "-1", "--force", "--input", "x=a/b",
                                                  "--input", "y=c,z = d", "--sigma", "1e-3"}),
                                            {});
  EXPECT_EQ(run.command, Command::kAnalyze);
  EXPECT_EQ(run.config.model.model, "m.pt2");
  EXPECT_EQ(run.config.eigs.top, 4);
  EXPECT_EQ(run.config.loss.ignore_index, -1);
  EXPECT_TRUE(run.config.output.force);
  EXPECT_EQ(run.config.quadrature.sigma, 1e-3);
  EXPECT_EQ(run.config.data.target, "target");
  const std::vector<std::pair<std::string, std::string>> inputs = {{"x", "a/b"}, {"y", "c"}, {"z", "d"}};
  EXPECT_EQ(run.config.data.inputs, inputs);
}

// One a time, later over earlier; a source replaces the lower one's list as a whole.
TEST(Options, WeightsMayBeGivenSeveralTimes) {
  using Names = std::vector<std::string>;
  const IniFile ini("weights = a, b.pt\nweights = c\n");
  const Invocation run = parse_command_line(with({"--config", ini.path(), "--weights-partial"}), {});
  EXPECT_EQ(run.config.model.weights, (Names{"a, b.pt", "c"}));
  EXPECT_TRUE(run.config.model.weights_partial);
  EXPECT_EQ(from_ini(to_ini(run.config), "x").model.weights, run.config.model.weights);
  EXPECT_EQ(
      parse_command_line(with({"--config", ini.path(), "--weights", "d", "--weights=e"}), {}).config.model.weights,
      (Names{"d", "e"}));
  EXPECT_EQ(parse_command_line(with({}), {{"HESSPECT_WEIGHTS", "f"}}).config.model.weights, Names{"f"});
  EXPECT_EQ(usage_error(with({"--weights", ""})), "--weights : a value is missing");
  EXPECT_EQ(usage_error(with({"--weights-key", "ema"})),
            "--weights-partial and --weights-key say how --weights is read, which is not given");
}

TEST(Options, CommandLineBeatsEnvironmentBeatsIniBeatsDefaults) {
  const IniFile ini("[probes]\nsteps = 11 ; why\nprobes = 12\nseed = 13\n# comment\ntarget = \"a # b\"\n");
  const Environment environment = {{"HESSPECT_STEPS", "21"}, {"HESSPECT_PROBES", "22"}, {"HESSPECT_SEED", ""}};
  const Invocation run = parse_command_line(with({"--config", ini.path(), "--steps", "31"}), environment);
  EXPECT_EQ(run.config.quadrature.steps, 31);
  EXPECT_EQ(run.config.quadrature.probes, 22);
  EXPECT_EQ(run.config.quadrature.seed, 13u);
  EXPECT_EQ(run.config.data.target, "a # b");
  EXPECT_EQ(run.config.eigs.top, 10);
}

TEST(Options, IniMayBeNamedByTheEnvironment) {
  const IniFile ini("model = a.pt2\ndata = d.h5\nloss = mse\noutput = r.h5\nforce = yes\n");
  const Invocation run = parse_command_line({"eigs"}, {{"HESSPECT_CONFIG", ini.path()}, {"HESSPECT_FORCE", "false"}});
  EXPECT_EQ(run.config.model.model, "a.pt2");
  EXPECT_FALSE(run.config.output.force);
}

TEST(Options, APresetStandsBelowWhateverIsGiven) {
  const IniFile ini("steps = 33\npreset = thorough\n");
  RunConfig config = parse_command_line(with({"--config", ini.path()}), {}).config;
  EXPECT_EQ(config.preset, Preset::kThorough);
  EXPECT_EQ(config.quadrature.steps, 33);
  EXPECT_EQ(config.quadrature.probes, 4);
  config = parse_command_line(with({"--config", ini.path(), "--preset", "quick", "--top", "7"}), {}).config;
  EXPECT_EQ(config.preset, Preset::kQuick);
  EXPECT_EQ(config.quadrature.steps, 33);
  EXPECT_EQ(config.quadrature.probes, 1);
  EXPECT_EQ(config.eigs.top, 7);
  EXPECT_EQ(config.data.samples_at_most, 1024);
  EXPECT_EQ(to_ini(from_ini(to_ini(config), "x")), to_ini(config));
  EXPECT_EQ(to_ini_of_result(config).find("preset"), std::string::npos);
  EXPECT_EQ(parse_command_line(with({"--preset", "quick", "--samples", "9"}), {}).config.data.samples_at_most, 0);
  EXPECT_EQ(to_ini(parse_command_line(with({"--preset", "standard"}), {}).config),
            to_ini(parse_command_line(with({}), {}).config));
  for (const std::string command :
       {"analyze", "density", "eigs", "trace", "inputs", "landscape", "sharpness", "features", "series", "plan"})
    for (const std::string preset : {"quick", "standard", "thorough"}) {
      std::vector<std::string> args = {command,  "--model", "m.pt2",    "--data", "d.h5",
                                       "--loss", "mse",     "--preset", preset};
      if (command != "plan") args.insert(args.end(), {"--output", "r.h5"});
      if (command == "features") args.insert(args.end(), {"--features", "auto"});
      if (command == "series") args.insert(args.end(), {"--checkpoints", "ckpt"});
      EXPECT_EQ(usage_error(args), "") << command << " " << preset;
    }
  EXPECT_EQ(usage_error(with({"--preset", "quik"})),
            "--preset quik: expected quick, standard or thorough (did you mean 'quick'?)");
}

TEST(Options, WhatIsLaunched) {
  const Launch launch = parse_launch({"-n", "4", "--hosts=a:2,b:2", "--launcher-options", "-x A", "--launcher-options",
                                      "-x B", "eigs", "--top", "3", "--help"});
  EXPECT_EQ(launch.config.ranks, 4);
  EXPECT_EQ(launch.config.hosts, "a:2,b:2");
  EXPECT_EQ(launch.config.launcher_options, (std::vector<std::string>{"-x A", "-x B"}));
  EXPECT_EQ(launch.command, (std::vector<std::string>{"eigs", "--top", "3", "--help"}));
  EXPECT_FALSE(launch.config.help);
  EXPECT_EQ(slots_of("a:2,b:3"), 5);
  EXPECT_EQ(slots_of("a,b:3"), 0);
  EXPECT_THROW(parse_launch({"-n", "4"}), UsageError);
  EXPECT_THROW(parse_launch({"-n"}), UsageError);
  EXPECT_THROW(parse_launch({"-n", "4", "inspect"}), UsageError);
  EXPECT_THROW(slots_of("a:x"), UsageError);
  const auto refused = [](const std::vector<std::string>& args) {
    try {
      parse_launch(args);
    } catch (const UsageError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(refused({"-n", "4", "-np", "2", "eigs"}), "--ranks is given twice");
  EXPECT_EQ(refused({"--rank", "4", "eigs"}), "'run' has no option '--rank' (did you mean '--ranks'?)");
  EXPECT_EQ(refused({"--zzzzzz", "eigs"}),
            "'run' has no option '--zzzzzz'; the command's own options stand behind the command");
}

TEST(Options, WordsOfTheQueue) {
  const QueueConfig submitted =
      parse_queue_command("submit", {"--spool=s", "--slurm", "eigs", "--top", "3", "--spool", "t"}, {});
  EXPECT_TRUE(submitted.slurm);
  EXPECT_EQ(submitted.spool, "s");
  EXPECT_EQ(submitted.words, (std::vector<std::string>{"eigs", "--top", "3", "--spool", "t"}));
  const QueueConfig waited = parse_queue_command("wait", {"a", "--timeout", "3", "b"}, {{"HESSPECT_SPOOL", "s"}});
  EXPECT_EQ(waited.timeout_s, 3);
  EXPECT_EQ(waited.words, (std::vector<std::string>{"a", "b"}));
  EXPECT_THROW(parse_queue_command("wait", {"a", "--spool"}, {}), UsageError);
  EXPECT_THROW(parse_queue_command("wait", {"a"}, {}), UsageError);
}

TEST(Options, AJobForEachCheckpoint) {
  const std::vector<std::string> series = {"series", "--model",       "M",  "--data", "D", "--loss",
                                           "mse",    "--checkpoints", "c/*"};
  const JobOptions job = jobs_of_series_from_arguments(series, {});
  EXPECT_EQ(job.run.command, Command::kAnalyze);
  EXPECT_EQ(job.run.config.series.checkpoints, std::vector<std::string>{"c/*"});
  for (const std::vector<std::string>& more : std::vector<std::vector<std::string>>{
           {"--follow"}, {"--every", "2"}, {"--output", "s.h5"}, {"--weights", "w"}}) {
    std::vector<std::string> args = series;
    args.insert(args.end(), more.begin(), more.end());
    EXPECT_THROW(jobs_of_series_from_arguments(args, {}), UsageError) << more.front();
  }
}

TEST(Options, UnknownNamesSuggestTheNearOne) {
  EXPECT_EQ(usage_error(with({"--stepz", "3"})), "unknown option '--stepz' (did you mean '--steps'?)");
  EXPECT_EQ(usage_error({"analyse"}).substr(0, 50), "unknown command 'analyse' (did you mean 'analyze'?");
  EXPECT_EQ(usage_error(kAnalyze, {{"HESSPECT_MICROBATCH", "3"}}),
            "unknown environment variable 'HESSPECT_MICROBATCH' (did you mean 'HESSPECT_MICRO_BATCH'?)");
  const IniFile ini("\nmicro_batch = 3\n");
  EXPECT_EQ(usage_error(with({"--config", ini.path()})),
            ini.path() + ":2: unknown key 'micro_batch' (did you mean 'micro-batch'?)");
}

TEST(Options, VariablesOfTheBuildAndTheTestsAreLeftAlone) {
  EXPECT_EQ(usage_error(kAnalyze, {{"HESSPECT_PYTHON", "python3"}, {"HESSPECT_FIXTURES", "x"}}), "");
}

TEST(Options, ValuesAreChecked) {
  EXPECT_EQ(usage_error(with({"--steps", "1"})), "--steps 1: expected an integer from 2 to 1000000");
  EXPECT_EQ(usage_error(with({"--steps", "3.5"})), "--steps 3.5: expected an integer from 2 to 1000000");
  EXPECT_EQ(usage_error(with({"--samples", "-1"})), "--samples -1: expected an integer, at least 0");
  EXPECT_EQ(usage_error(with({"--seed", "-1"})), "--seed -1: expected an integer from 0 to 2^64 - 1");
  EXPECT_EQ(usage_error(with({"--sigma", "nan"})), "--sigma nan: expected a number, at least 0 and below 1e+100");
  EXPECT_EQ(usage_error(with({"--rtol-eigs", "0"})), "--rtol-eigs 0: expected a number above 0 and below 1");
  EXPECT_EQ(usage_error(with({"--dtype", "float46"})),
            "--dtype float46: expected float32 or float64 (did you mean 'float64'?)");
  EXPECT_EQ(usage_error(with({"--precision", "bf61"})),
            "--precision bf61: expected fp32, tf32 or bf16 (did you mean 'bf16'?)");
  EXPECT_EQ(usage_error(with({"--precision", "bf16", "--dtype", "float64"})),
            "--precision bf16 needs --dtype float32: in float64 matrices are multiplied in full");
  EXPECT_EQ(usage_error(with({"--precision", "fp32", "--dtype", "float64"})), "");
  EXPECT_EQ(usage_error(with({"--precision", "tf32"})), "");
  EXPECT_EQ(usage_error(with({"--curvature", "fischer"})),
            "--curvature fischer: expected hessian, ggn, fisher or empirical_fisher (did you mean 'fisher'?)");
  EXPECT_EQ(usage_error(with({"--curvature", "fisher", "--fisher-unit", "row"})),
            "--fisher-unit belongs to --curvature empirical_fisher, not to fisher");
  EXPECT_EQ(usage_error(with({"--curvature", "empirical_fisher", "--fisher-unit", "row"})), "");
  EXPECT_EQ(usage_error(with({"--trace-method", "xnystrace"})),
            "--trace-method xnystrace needs a positive semi-definite matrix, --curvature ggn, fisher or "
            "empirical_fisher: the Hessian has negative eigenvalues; xtrace takes any");
  EXPECT_EQ(usage_error(with({"--trace-method", "xnystrace", "--curvature", "ggn"})), "");
  EXPECT_EQ(usage_error(with({"--input", "x"})), "--input x: expected NAME=DATASET, got 'x'");
  EXPECT_EQ(usage_error(with({"--input", "x=a,x=b"})), "--input x=a,x=b: 'x' is given twice");
  EXPECT_EQ(usage_error(with({"--unit-rows", "0"})), "--unit-rows 0: expected all or an integer of at least 1");
  EXPECT_EQ(usage_error(with({"--unit-rows", "some"})), "--unit-rows some: expected all or an integer of at least 1");
  EXPECT_EQ(usage_error(with({"--batch-dim", "x=one"})),
            "--batch-dim x=one: expected the number of a dimension, from 0");
  EXPECT_EQ(usage_error(with({"--unit-rows", "4", "--micro-batch", "6"})),
            "--micro-batch 6 is no whole number of --unit-rows 4");
  EXPECT_EQ(usage_error(kAnalyze, {{"HESSPECT_PROBES", "0"}}),
            "HESSPECT_PROBES=0: expected an integer from 1 to 1000000");
  const IniFile ini("top = many\n");
  EXPECT_EQ(usage_error(with({"--config", ini.path()})),
            ini.path() + ":1: top = many: expected an integer from 0 to 10000");
  EXPECT_NE(usage_error(with({"--distribution", "uniform"})), "");
}

TEST(Options, MissingAndContradictory) {
  EXPECT_EQ(usage_error({}), "no command is given; 'hesspect --help' lists them");
  EXPECT_EQ(usage_error({"analyze", "--model", "m.pt2"}), "'analyze' needs --data, an HDF5 or safetensors file");
  EXPECT_EQ(usage_error({"density", "--from", "r.h5"}), "'density' needs --output, the file to write");
  EXPECT_EQ(usage_error(with({"--from", "r.h5"})), "--from belongs to 'density', not to 'analyze'");
  EXPECT_EQ(usage_error({"inspect"}), "'inspect' needs a file: hesspect inspect FILE");
  EXPECT_EQ(usage_error({"compare"}), "'compare' needs results: hesspect compare R.h5 ...");
  EXPECT_EQ(usage_error(with({"stray"})), "unexpected argument 'stray'");
  EXPECT_EQ(usage_error(with({"--steps", "3", "--steps", "4"})), "--steps is given twice");
  EXPECT_NE(usage_error(with({"--steps"})), "");
  EXPECT_NE(usage_error({"analyze", "--model", "--data", "d.h5"}), "");
  EXPECT_EQ(usage_error(with({"--quiet", "--verbose"})), "--quiet and --verbose contradict each other");
  EXPECT_EQ(usage_error({"eigs", "--model", "m", "--data", "d", "--loss", "mse", "--output", "r", "--top", "0",
                         "--bottom", "0"}),
            "'eigs' needs --top, --bottom or --magnitude above 0");
}

TEST(Options, BrokenIniFiles) {
  EXPECT_EQ(usage_error(with({"--config", "/nowhere/run.ini"})),
            "cannot read --config '/nowhere/run.ini': No such file or directory");
  EXPECT_EQ(usage_error(with({"--config", "/tmp"})), "--config '/tmp' is a directory");
  const IniFile no_value("steps\n");
  EXPECT_EQ(usage_error(with({"--config", no_value.path()})),
            no_value.path() + ":1: 'steps' is not of the form key = value");
  const IniFile twice("steps = 3\nsteps = 4\n");
  EXPECT_EQ(usage_error(with({"--config", twice.path()})), twice.path() + ":2: 'steps' is given twice");
  const IniFile open_quote("target = \"a\n");
  EXPECT_EQ(usage_error(with({"--config", open_quote.path()})),
            open_quote.path() + ":1: the quoted value does not end");
}

TEST(Options, ResolvedConfigReadsBackTheSame) {
  const Invocation run = parse_command_line(with({"--sigma",
                                                  "0.1",
                                                  "--rtol-eigs",
                                                  "1e-300",
                                                  "--seed",
                                                  "18446744073709551615",
                                                  "--input",
                                                  "x=a b",
                                                  "--input",
                                                  "y=c#1",
                                                  "--target",
                                                  " odd \"name\\ # ; ",
                                                  "--reorthogonalization",
                                                  "none",
                                                  "--top",
                                                  "0",
                                                  "--bottom",
                                                  "0",
                                                  "--verbose",
                                                  "--distribution",
                                                  "gaussian"}),
                                            {});
  const std::string text = to_ini(run.config);
  const RunConfig back = from_ini(text, "resolved");
  EXPECT_EQ(to_ini(back), text);
  EXPECT_EQ(back.quadrature.sigma, 0.1);
  EXPECT_EQ(back.eigs.rtol_eigs, 1e-300);
  EXPECT_EQ(back.quadrature.seed, UINT64_MAX);
  EXPECT_EQ(back.data.target, " odd \"name\\ # ; ");
  EXPECT_EQ(back.data.inputs, run.config.data.inputs);
  EXPECT_FALSE(back.quadrature.reorthogonalize);
  EXPECT_TRUE(back.output.verbose);
}

TEST(Options, FlagsTakeNoWordAfterThem) {
  const Invocation inspect = parse_command_line({"inspect", "--quiet", "a.h5"}, {});
  EXPECT_EQ(inspect.file, "a.h5");
  EXPECT_TRUE(inspect.config.output.quiet);
  std::vector<std::string> flag_first = kAnalyze;
  flag_first.insert(flag_first.begin(), "--force");
  EXPECT_TRUE(parse_command_line(flag_first, {}).config.output.force);
  EXPECT_TRUE(parse_command_line({"--print-config", "analyze"}, {}).print_config);
  EXPECT_FALSE(parse_command_line(with({"--quiet=false"}), {}).config.output.quiet);
  EXPECT_TRUE(parse_command_line(with({"--quiet=true"}), {}).config.output.quiet);
}

TEST(Options, SmoothingRefusesWhatItIgnores) {
  const std::vector<std::string> from = {"density", "--from", "a.h5", "--output", "b.h5", "--sigma", "1", "--force"};
  EXPECT_EQ(usage_error(from, {{"HESSPECT_PROBES", "3"}}), "");
  std::vector<std::string> more = from;
  more.insert(more.end(), {"--top", "3"});
  EXPECT_EQ(usage_error(more).substr(0, 41), "--top has no effect on 'density --from', ");
}

TEST(Options, WhatReadsResultsTakesFilesAndLittleElse) {
  const Invocation run = parse_command_line({"report", "a.h5", "--format", "html", "b.h5", "--output=p.html"},
                                            {{"HESSPECT_OUTPUT", "not.h5"}, {"HESSPECT_NO_SUCH", "1"}});
  EXPECT_EQ(run.command, Command::kReport);
  EXPECT_EQ(run.files, (std::vector<std::string>{"a.h5", "b.h5"}));
  EXPECT_EQ(run.config.report.format, ReportFormat::kHtml);
  EXPECT_EQ(run.config.output.output, "p.html");
  EXPECT_EQ(parse_command_line({"compare", "a.h5", "b.h5"}, {{"HESSPECT_OUTPUT", "r.h5"}}).config.output.output, "");
  EXPECT_EQ(usage_error({"report", "a.h5", "--top", "3"}),
            "--top has no effect on 'report', which reads earlier results");
  EXPECT_EQ(usage_error({"compare", "a.h5", "b.h5", "--format", "html"}),
            "'compare' writes text or json, not html: 'report' writes a page");
  EXPECT_NE(usage_error({"report", "a.h5", "--format", "pdf"}), "");
  EXPECT_NE(usage_error({"report", "a.h5", "--momentum", "1"}), "");
  for (const Command c : {Command::kReport, Command::kCompare})
    EXPECT_NE(help_text(c).find("--format text|json|html"), std::string::npos);
}

// The command line, the environment and the ini file have one name space.
TEST(Options, NoTwoHaveOneName) {
  std::istringstream lines(to_ini(RunConfig{}));
  std::set<std::string> names;
  for (std::string line; std::getline(lines, line);)
    if (const auto equals = line.find(" = "); equals != std::string::npos) {
      EXPECT_TRUE(names.insert(line.substr(0, equals)).second) << line;
    }
  EXPECT_GT(names.size(), 50u);
}

TEST(Options, IniMayBeginWithAByteOrderMark) {
  const IniFile ini("\xEF\xBB\xBFsteps = 7\n");
  EXPECT_EQ(parse_command_line(with({"--config", ini.path()}), {}).config.quadrature.steps, 7);
}

TEST(Options, HelpAndVersionNeedNothingElse) {
  EXPECT_TRUE(parse_command_line({"--help"}, {}).help);
  EXPECT_TRUE(parse_command_line({"analyze", "-h"}, {}).help);
  EXPECT_TRUE(parse_command_line({"--version"}, {}).version);
  EXPECT_EQ(parse_command_line({"help", "eigs"}, {}).command, Command::kEigs);
  for (Command c : {Command::kAnalyze, Command::kDensity, Command::kEigs, Command::kTrace})
    EXPECT_NE(help_text(c).find("--micro-batch N"), std::string::npos);
  EXPECT_NE(help_text(Command::kNone).find("inspect"), std::string::npos);
}

TEST(Options, Sizes) {
  const auto memory = [](const std::string& text) {
    return parse_command_line(with({"--memory", text}), {}).config.layout.memory;
  };
  EXPECT_EQ(memory("80G"), std::int64_t{80} << 30);
  EXPECT_EQ(memory("80GiB"), std::int64_t{80} << 30);
  EXPECT_EQ(memory("80GB"), 80'000'000'000);
  EXPECT_EQ(memory("1.5k"), 1536);
  EXPECT_EQ(memory("12345"), 12345);
  for (const std::string wrong : {"80X", "G", "-1", "80 G", "1e30T", "80Gi", ""})
    EXPECT_NE(usage_error(with({"--memory", wrong})), "") << wrong;
  EXPECT_EQ(parse_command_line(with({"--graph-memory", "auto"}), {}).config.layout.graph_memory, -1);
  EXPECT_NE(usage_error(with({"--memory", "auto"})), "");
}

TEST(Options, CudaGraphsAreOnUnlessTurnedOff) {
  EXPECT_TRUE(parse_command_line(kAnalyze, {}).config.layout.cuda_graphs);
  const RunConfig off = parse_command_line(with({"--cuda-graphs", "off"}), {}).config;
  EXPECT_FALSE(off.layout.cuda_graphs);
  EXPECT_FALSE(from_ini(to_ini(off), "text").layout.cuda_graphs);
  EXPECT_NE(usage_error(with({"--cuda-graphs", "on"})), "");
}

TEST(Options, RatesTakeALetter) {
  const auto config = [](const std::string& option, const std::string& text) {
    return parse_command_line({"plan", "--model", "m", "--data", "d", "--loss", "mse", option, text}, {}).config.plan;
  };
  EXPECT_DOUBLE_EQ(config("--bandwidth", "50G").bandwidth, 50);
  EXPECT_DOUBLE_EQ(config("--bandwidth", "50").bandwidth, 50);
  EXPECT_DOUBLE_EQ(config("--bandwidth", "800M").bandwidth, 0.8);
  EXPECT_DOUBLE_EQ(config("--flops", "400T").tflops, 400);
  EXPECT_DOUBLE_EQ(config("--flops", "1.5P").tflops, 1500);
  EXPECT_DOUBLE_EQ(config("--flops", "30G").tflops, 0.03);
  EXPECT_DOUBLE_EQ(config("--latency", "2.5").latency_us, 2.5);
  for (const std::string wrong : {"T", "-1G", "5X", "1e", "GG", ""})
    EXPECT_NE(usage_error(with({"--bandwidth", wrong})), "");
  RunConfig run;
  run.plan = config("--flops", "400T");
  EXPECT_DOUBLE_EQ(from_ini(to_ini(run), "text").plan.tflops, 400);
}

TEST(Options, ParametersAreWhereverThePlanPutsThem) {
  EXPECT_EQ(parse_command_line(kAnalyze, {}).config.layout.parameters, ParameterMemory::kAuto);
  for (const ParameterMemory way : {ParameterMemory::kReplicated, ParameterMemory::kSharded, ParameterMemory::kHost}) {
    const RunConfig config = parse_command_line(with({"--parameters", to_string(way)}), {}).config;
    EXPECT_EQ(config.layout.parameters, way);
    EXPECT_EQ(from_ini(to_ini(config), "text").layout.parameters, way);
  }
  EXPECT_NE(usage_error(with({"--parameters", "shared"})), "");
}

TEST(Options, SizesReadBack) {
  RunConfig config = parse_command_line(with({"--memory", "3G", "--resume", "--max-hours", "0.5"}), {}).config;
  const RunConfig again = from_ini(to_ini(config), "text");
  EXPECT_EQ(again.layout.memory, std::int64_t{3} << 30);
  EXPECT_EQ(again.layout.graph_memory, -1);
  EXPECT_TRUE(again.checkpoint.resume);
  EXPECT_EQ(again.checkpoint.max_hours, 0.5);
}

/// What a checkpoint is told apart by: nothing about where files lie or how ranks are laid out, all that moves a
/// number.
TEST(Options, IniOfTheResult) {
  const std::string base = to_ini_of_result(parse_command_line(kAnalyze, {}).config);
  for (const std::vector<std::string>& same : std::vector<std::vector<std::string>>{{"--groups", "2"},
                                                                                    {"--lock-step", "3"},
                                                                                    {"--memory", "1G"},
                                                                                    {"--parameters", "sharded"},
                                                                                    {"--cuda-graphs", "off"},
                                                                                    {"--resume"},
                                                                                    {"--max-hours", "1"},
                                                                                    {"--threads", "3"},
                                                                                    {"--checkpoint", "c"},
                                                                                    {"--force"},
                                                                                    {"--verbose"},
                                                                                    {"--trace-json", "t.json"},
                                                                                    {"--format", "json"}})
    EXPECT_EQ(to_ini_of_result(parse_command_line(with(same), {}).config), base) << same.front();
  for (const std::vector<std::string>& other :
       std::vector<std::vector<std::string>>{{"--steps", "7"},
                                             {"--seed", "1"},
                                             {"--dtype", "float64"},
                                             {"--samples", "9"},
                                             {"--micro-batch", "2"},
                                             {"--basis-dtype", "bfloat16"},
                                             {"--top", "1"},
                                             {"--magnitude", "13"},
                                             {"--block", "2"},
                                             {"--max-basis", "64"},
                                             {"--true-residuals=false"},
                                             {"--trace-method", "xtrace"},
                                             {"--layers=false"},
                                             {"--rtol-trace", "0.1"},
                                             {"--density-w1", "0.1"},
                                             {"--confidence", "0.8"},
                                             {"--max-hvps", "99"},
                                             {"--reorthogonalization", "none", "--top", "0", "--bottom", "0"}})
    EXPECT_NE(to_ini_of_result(parse_command_line(with(other), {}).config), base) << other.front();
  RunConfig landscape, points, file;  // which is resumed too
  points.landscape.points = 9;
  file.landscape.directions_file = "d.h5";
  EXPECT_NE(to_ini_of_result(points), to_ini_of_result(landscape));
  EXPECT_EQ(to_ini_of_result(file), to_ini_of_result(landscape));
}

TEST(Options, PlanNeedsNoOutput) {
  const std::vector<std::string> plan = {"plan", "--model", "m.pt2", "--data", "d.h5", "--loss", "mse"};
  std::vector<std::string> args = plan;
  args.insert(args.end(), {"--world", "64", "--memory", "80G", "--measure=false", "--for", "eigs"});
  EXPECT_EQ(usage_error({"analyze", "--world", "4", "--model", "m", "--data", "d", "--loss", "mse", "--output", "o"}),
            "--world belongs to 'plan'; 'mpirun -n' sets the ranks of a run");
  const Invocation run = parse_command_line(args, {});
  EXPECT_EQ(run.command, Command::kPlan);
  EXPECT_EQ(run.config.plan.world, 64);
  EXPECT_FALSE(run.config.plan.measure);
}

std::vector<std::string> eigs(std::vector<std::string> more) {
  std::vector<std::string> args = with(std::move(more));
  args.front() = "eigs";
  return args;
}

TEST(Options, MagnitudeTakesThePlaceOfTopAndBottom) {
  const auto counts = [](const std::vector<std::string>& more, const Environment& environment = {}) {
    const EigsConfig c = parse_command_line(with(more), environment).config.eigs;
    return std::vector<std::int64_t>{c.top, c.bottom, c.magnitude};
  };
  EXPECT_EQ(counts({}), (std::vector<std::int64_t>{10, 3, 0}));
  EXPECT_EQ(counts({"--magnitude", "5"}), (std::vector<std::int64_t>{0, 0, 5}));
  EXPECT_EQ(counts({"--magnitude", "5", "--top", "0"}), (std::vector<std::int64_t>{0, 0, 5}));
  EXPECT_EQ(counts({"--magnitude", "0", "--top", "4"}), (std::vector<std::int64_t>{4, 3, 0}));
  EXPECT_EQ(counts({}, {{"HESSPECT_MAGNITUDE", "2"}}), (std::vector<std::int64_t>{0, 0, 2}));
  const std::string both = "--magnitude takes the place of --top and --bottom: give one or the other";
  EXPECT_EQ(usage_error(with({"--magnitude", "5", "--top", "1"})), both);
  EXPECT_EQ(usage_error(with({"--magnitude", "5"}), {{"HESSPECT_BOTTOM", "1"}}), both);
  const IniFile ini("top = 2\n");
  EXPECT_EQ(usage_error(with({"--magnitude", "5", "--config", ini.path()})), both);
  EXPECT_EQ(usage_error(eigs({"--top", "0", "--bottom", "0", "--magnitude", "1"})), "");
}

/// What was decided from other options is in the ini text, which reads back to the same.
TEST(Options, DecidedDefaultsReadBackAsGiven) {
  for (const std::vector<std::string>& more :
       std::vector<std::vector<std::string>>{{"--magnitude", "5"}, {"--reorthogonalization", "none"}}) {
    const RunConfig config = parse_command_line(with(more), {}).config;
    const IniFile ini(to_ini(config));
    EXPECT_EQ(to_ini(parse_command_line({"analyze", "--config", ini.path()}, {}).config), to_ini(config));
    EXPECT_EQ(to_ini(from_ini(to_ini(config), "text")), to_ini(config));
  }
}

TEST(Options, EigenvaluesWithoutReorthogonalisation) {
  const RunConfig config = parse_command_line(with({"--reorthogonalization", "none"}), {}).config;
  EXPECT_EQ(config.eigs.top, 10);
  EXPECT_FALSE(config.eigs.true_residuals);
  EXPECT_EQ(config.trace.trace_method, TraceMethod::kHutchinson);
  EXPECT_TRUE(parse_command_line(kAnalyze, {}).config.eigs.true_residuals);
  EXPECT_EQ(parse_command_line(kAnalyze, {}).config.trace.trace_method, TraceMethod::kDeflated);
  const auto refused = [](std::vector<std::string> more) {
    more.insert(more.end(), {"--reorthogonalization", "none"});
    return usage_error(with(more));
  };
  const std::string why = " needs --reorthogonalization full: without it the Lanczos vectors are not kept";
  EXPECT_EQ(refused({"--true-residuals"}), "");  // a second pass makes the vectors
  EXPECT_EQ(refused({"--eigenvectors", "v.h5"}), "");
  EXPECT_EQ(refused({"--block", "2"}), "--block-size above 1" + why);
  EXPECT_EQ(refused({"--max-basis", "99"}), "--max-basis" + why);
  EXPECT_EQ(refused({"--trace-method", "deflated"}),
            "--trace-method deflated needs --reorthogonalization full; without it, hutchinson");
  EXPECT_EQ(refused({"--trace-method", "xtrace"}), "");
  // Another command does not use them.
  std::vector<std::string> density = with({"--reorthogonalization", "none", "--true-residuals"});
  density.front() = "density";
  EXPECT_EQ(usage_error(density), "");
}

TEST(Options, PowerIterationAsksForMagnitudes) {
  const RunConfig config = parse_command_line(eigs({"--method", "power"}), {}).config;
  EXPECT_EQ(config.eigs.magnitude, 10);
  EXPECT_EQ(config.eigs.top + config.eigs.bottom, 0);
  EXPECT_EQ(parse_command_line(eigs({"--method", "power", "--magnitude", "4"}), {}).config.eigs.magnitude, 4);
  EXPECT_EQ(usage_error(eigs({"--method", "power", "--top", "4"})),
            "--method power finds the largest |eigenvalues|: ask with --magnitude, not --top and --bottom");
  EXPECT_EQ(usage_error(with({"--method", "power"})), "--method power belongs to 'eigs', not to 'analyze'");
  EXPECT_EQ(usage_error(eigs({"--method", "power", "--block", "2"})),
            "--block-size and --max-basis belong to --method lanczos");
  EXPECT_EQ(usage_error(eigs({"--method", "power", "--max-basis", "100"})),
            "--block-size and --max-basis belong to --method lanczos");
  EXPECT_EQ(usage_error(eigs({"--method", "power", "--reorthogonalization", "none", "--eigenvectors", "v.h5"})), "");
  EXPECT_EQ(usage_error({"plan", "--for", "eigs", "--model", "m", "--data", "d", "--loss", "mse", "--method", "power"}),
            "");
}

TEST(Options, BasisAndBlockFitWhatIsWanted) {
  EXPECT_EQ(usage_error(with({"--max-basis", "20"})),
            "--max-basis 20 is too small for 13 eigenvalues: at least 21, better twice that");
  EXPECT_EQ(usage_error(with({"--max-basis", "21"})), "");
  EXPECT_EQ(usage_error(with({"--max-basis", "20", "--max-steps", "19"})), "");  // never outgrown
  EXPECT_EQ(usage_error(with({"--max-basis", "22", "--block", "5"})),
            "--max-basis 22 is too small for 13 eigenvalues: at least 23, better twice that");
  EXPECT_EQ(usage_error(with({"--max-steps", "1"})),
            "--max-steps 1 is too few: at least 2, or 0 for as many as are usual");
  EXPECT_EQ(usage_error(with({"--block", "201"})),
            "--block-size 201 is more than --max-steps 200: a block takes a step for each of its vectors");
  EXPECT_EQ(usage_error(with({"--max-steps", "4", "--block", "5"})),
            "--block-size 5 is more than --max-steps 4: a block takes a step for each of its vectors");
  EXPECT_EQ(usage_error(with({"--block", "1001"})), "--block 1001: expected an integer from 1 to 1000");
}

TEST(Options, FewDimensionsHaveStepsForAllEigenvalues) {
  EigsConfig eigs;
  EXPECT_EQ(most_steps(eigs, 12), 200);  // no fewer: with reorthogonalization none, n steps may not do
  EXPECT_EQ(most_steps(eigs, 201), 201);
  EXPECT_EQ(most_steps(eigs, 1000), 1000);
  EXPECT_EQ(most_steps(eigs, 1001), 200);
  eigs.max_steps = 40;
  EXPECT_EQ(most_steps(eigs, 201), 40);
}

TEST(Options, FilesOfVectors) {
  const RunConfig config =
      parse_command_line(with({"--eigenvectors", "v.safetensors", "--diagonal", "d.hdf5"}), {}).config;
  EXPECT_EQ(config.eigs.eigenvectors, "v.safetensors");
  EXPECT_EQ(config.trace.diagonal, "d.hdf5");
  const auto as = [](const std::string& command, const std::vector<std::string>& more) {
    std::vector<std::string> args = with(more);
    args.front() = command;
    return usage_error(args);
  };
  EXPECT_EQ(as("analyze", {"--eigenvectors", "v.npz"}),
            "--eigenvectors v.npz: expected a name that ends in .h5, .hdf5 or .safetensors");
  EXPECT_EQ(as("analyze", {"--diagonal", "h5"}),
            "--diagonal h5: expected a name that ends in .h5, .hdf5 or .safetensors");
  EXPECT_EQ(as("analyze", {"--eigenvectors", "./r.h5"}), "--eigenvectors and --output name the same file");
  EXPECT_EQ(as("trace", {"--diagonal", "r.h5"}), "--diagonal and --output name the same file");
  EXPECT_EQ(as("analyze", {"--eigenvectors", "v.h5", "--diagonal", "v.h5"}),
            "--eigenvectors and --diagonal name the same file");
  EXPECT_EQ(as("trace", {"--eigenvectors", "v.h5"}), "--eigenvectors belongs to 'analyze' and 'eigs', not to 'trace'");
  EXPECT_EQ(as("eigs", {"--diagonal", "d.h5"}), "--diagonal belongs to 'analyze' and 'trace', not to 'eigs'");
  EXPECT_EQ(as("analyze", {"--top", "0", "--bottom", "0", "--eigenvectors", "v.h5"}),
            "--eigenvectors needs --top, --bottom or --magnitude above 0");
  EXPECT_EQ(as("trace", {"--diagonal", "d.h5", "--trace-method", "hutch++"}),
            "--diagonal needs --trace-method deflated or hutchinson, not hutch++");
  EXPECT_EQ(as("trace", {"--diagonal", "d.h5", "--trace-method", "hutchinson"}), "");
}

TEST(Options, Accuracy) {
  const AccuracyConfig c =
      parse_command_line(with({"--rtol-trace", "0", "--density-w1=0.5", "--confidence", "0.9999", "--max-hvps", "0"}),
                         {})
          .config.accuracy;
  EXPECT_EQ(c.rtol_trace, 0);
  EXPECT_EQ(c.density_w1, 0.5);
  EXPECT_EQ(c.confidence, 0.9999);
  EXPECT_EQ(c.max_hvps, 0);
  EXPECT_EQ(usage_error(with({"--confidence", "0.49"})),
            "--confidence 0.49: expected a number, at least 0.5 and below 0.99999");
  EXPECT_NE(usage_error(with({"--confidence", "0.99999"})), "");
  EXPECT_NE(usage_error(with({"--rtol-trace", "-0.1"})), "");
  EXPECT_EQ(
      usage_error(with({"--trace-method", "hutchpp"})),
      "--trace-method hutchpp: expected deflated, hutchinson, hutch++, xtrace or xnystrace (did you mean 'hutch++'?)");
  const std::string help = help_text(Command::kAnalyze);
  for (const char* option :
       {"--magnitude", "--method", "--block-size", "--max-basis", "--true-residuals", "--eigenvectors",
        "--trace-method", "--layers", "--diagonal", "--rtol-trace", "--density-w1", "--confidence", "--max-hvps"})
    EXPECT_NE(help.find(option), std::string::npos) << option;
  EXPECT_NE(help.find("--layers=false"), std::string::npos);  // how to turn off what is on
  EXPECT_EQ(help.find("--force=false"), std::string::npos);
}

TEST(Options, Parts) {
  const RunConfig c = parse_command_line(with({"--params", "a{1,2}", "--params", "b", "--exclude", "bias$", "--block",
                                               "x=w{1,2}=.", "--block", "x=b", "--block", "4", "--block-hvps", "50"}),
                                         {})
                          .config;
  using Pairs = std::vector<std::pair<std::string, std::string>>;
  EXPECT_EQ(c.parts.params, (std::vector<std::string>{"a{1,2}", "b"}));
  EXPECT_EQ(c.parts.exclude, std::vector<std::string>{"bias$"});
  EXPECT_EQ(c.parts.blocks, (Pairs{{"x", "w{1,2}=."}, {"x", "b"}}));
  EXPECT_EQ(c.parts.block_hvps, 50);
  EXPECT_EQ(c.eigs.block, 4);  // a number says how many start vectors, as --block-size does
  EXPECT_EQ(from_ini(to_ini(c), "config").parts.blocks, c.parts.blocks);
  EXPECT_EQ(from_ini(to_ini(c), "config").eigs.block, 4);
  EXPECT_EQ(parse_command_line(with({"--blocks", "per-module"}), {}).config.parts.grouping, ParameterGrouping::kModule);
  EXPECT_EQ(usage_error(with({"--block", "weight"})), "--block weight: expected NAME=REGEX, got 'weight'");
  EXPECT_EQ(usage_error(with({"--block", "a/b=c"})),
            "--block a/b=c: a block's name must not hold a '/', nor be '.' or '..'");
  EXPECT_EQ(usage_error(with({"--block", "a=c", "--blocks", "per-layer"})),
            "--block and --blocks say twice what the blocks are: give one of them");
  EXPECT_EQ(usage_error(with({"--blocks", "per-layer", "--reorthogonalization", "none"})),
            "blocks need --reorthogonalization full: without it the Lanczos vectors are not kept");
}

std::vector<std::string> with_loss(const std::string& loss, std::vector<std::string> more) {
  std::vector<std::string> args = with(std::move(more));
  args.at(6) = loss;
  return args;
}

TEST(Options, WeightsAreNumbersOrAnArray) {
  const auto weights = [](const std::string& text) {
    return parse_command_line(with_loss("nll", {"--class-weights", text}), {}).config.loss.class_weights;
  };
  EXPECT_EQ(weights("0.25, 1,1e3").numbers, (std::vector<double>{0.25, 1, 1000}));
  EXPECT_EQ(weights("2").numbers, std::vector<double>{2});
  EXPECT_EQ(weights("of/classes").array, "of/classes");
  EXPECT_TRUE(weights("of/classes").numbers.empty());
  EXPECT_FALSE(LossConfig().class_weights.given());
  for (const std::string wrong : {"1,-2", "1,,2", "1,x", "nan", "inf", "1,"})
    EXPECT_EQ(usage_error(with_loss("nll", {"--class-weights=" + wrong})),
              "--class-weights " + wrong +
                  ": expected numbers that are not negative, separated by commas, or the name of an array");
}

TEST(Options, LossesReadBack) {
  const std::vector<std::vector<std::string>> all = {
      {"cross_entropy", "--class-weights", "0.1,0.30000000000000004,2", "--label-smoothing", "0.1"},
      {"masked_lm", "--class-weights", "of classes", "--loss-weight", "w"},
      {"bce_with_logits", "--pos-weight", "3"},
      {"smooth_l1", "--beta", "0.5"},
      {"huber", "--delta", "2.5"}};
  for (const std::vector<std::string>& one : all) {
    const RunConfig config = parse_command_line(with_loss(one[0], {one.begin() + 1, one.end()}), {}).config;
    EXPECT_EQ(to_ini(from_ini(to_ini(config), "text")), to_ini(config));
    EXPECT_EQ(from_ini(to_ini(config), "text").loss.class_weights.numbers, config.loss.class_weights.numbers);
    EXPECT_NE(to_ini_of_result(config), to_ini_of_result(parse_command_line(with_loss(one[0], {}), {}).config));
    const IniFile ini(to_ini(config));  // with the usual values of what belongs to other losses
    EXPECT_EQ(to_ini(parse_command_line({"analyze", "--config", ini.path()}, {}).config), to_ini(config));
  }
}

TEST(Options, OfAnotherLoss) {
  EXPECT_EQ(usage_error(with({"--label-smoothing", "0.1"})),
            "--label-smoothing belongs to --loss cross_entropy, causal_lm, masked_lm, not to mse");
  EXPECT_EQ(usage_error(with({"--class-weights", "1,2"})),
            "--class-weights belongs to --loss cross_entropy, causal_lm, masked_lm, nll, not to mse");
  EXPECT_EQ(usage_error(with_loss("bce", {"--pos-weight", "2"})),
            "--pos-weight belongs to --loss bce_with_logits, not to bce");
  EXPECT_EQ(usage_error(with_loss("huber", {"--beta", "2"})), "--beta belongs to --loss smooth_l1, not to huber");
  EXPECT_EQ(usage_error(with_loss("smooth_l1", {"--delta", "2"})), "--delta belongs to --loss huber, not to smooth_l1");
  EXPECT_EQ(usage_error(with_loss("output", {"--loss-weight", "w"})),
            "--loss-weight has no effect on --loss output: weigh the rows inside the program");
  EXPECT_EQ(usage_error(with({"--label-smoothing", "0", "--beta", "1", "--loss-weight", "w"})), "");
  EXPECT_EQ(usage_error(with_loss("smooth_l1", {"--beta", "0"})),
            "--beta 0: expected a number above 0 and below 1e+100");
  EXPECT_NE(usage_error(with_loss("huber", {"--delta=-1"})), "");
  EXPECT_NE(usage_error(with_loss("nll", {"--label-smoothing", "0.1"})), "");
  EXPECT_NE(usage_error(with_loss("cross_entropy", {"--label-smoothing", "1"})), "");
}

}  // namespace
}  // namespace hesspect::options_test
