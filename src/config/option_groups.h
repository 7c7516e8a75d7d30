// Which options there are: one function per topic.
#pragma once

#include "hesspect/config/launch.h"
#include "hesspect/config/options.h"
#include "hesspect/config/watch_config.h"
#include "option_table.h"

namespace hesspect {

/// What --loss takes.
const std::vector<std::string>& loss_names();

/// What stands for many options at once: its own function sets the field, `apply_preset` the rest.
OptionGroup preset_options(RunConfig& config);
OptionGroup model_options(ModelConfig& config);
OptionGroup data_options(DataConfig& config);
OptionGroup loss_options(LossConfig& config);
OptionGroup curvature_options(CurvatureConfig& config);
OptionGroup parts_options(PartsConfig& config, EigsConfig& eigs);
OptionGroup eigs_options(EigsConfig& config);
OptionGroup trace_options(TraceConfig& config);
OptionGroup accuracy_options(AccuracyConfig& config);
OptionGroup quadrature_options(QuadratureConfig& config);
OptionGroup compute_options(ComputeConfig& config);
OptionGroup layout_options(LayoutConfig& config);
OptionGroup checkpoint_options(CheckpointConfig& config);
OptionGroup inputs_options(InputsConfig& config);
OptionGroup plan_options(PlanConfig& config);
OptionGroup landscape_options(LandscapeConfig& config);
OptionGroup sharpness_options(SharpnessConfig& config);
OptionGroup features_options(FeaturesConfig& config);
OptionGroup series_options(SeriesConfig& config);
OptionGroup output_options(OutputConfig& config);
OptionGroup report_options(ReportConfig& config);
/// How a resident process is seen from outside, in the group of its command.
void add_watch_options(OptionGroup& group, WatchConfig& config);
/// Options about the invocation itself, which only the command line has. @param ini_file  set by --config
OptionGroup general_options(Invocation& run, std::string& ini_file);

/// Options of `hesspect run`, which no run itself has.
OptionGroup launch_options(LaunchConfig& config);

/// All options of a run, over one config.
OptionTable run_options(RunConfig& config);

}  // namespace hesspect
