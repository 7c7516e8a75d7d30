// What --preset stands for: the defaults and a few lines. docs/cli.md has them as a table, which tests/app/front.py
// compares.
#include "hesspect/config/options.h"

namespace hesspect {
namespace {

/// A first look: few rows, few products, wide intervals.
void make_quick(RunConfig& c) {
  c.data.samples_at_most = 1024;
  c.eigs.max_steps = 60;
  c.eigs.rtol_eigs = 1e-2;
  c.eigs.true_residuals = false;
  c.parts.block_hvps = 50;
  c.accuracy.rtol_trace = 0.1;
  c.accuracy.density_w1 = 0.05;
  c.accuracy.max_hvps = 300;
  c.quadrature.steps = 30;
  c.inputs.rtol_inputs = 0.05;
  c.inputs.input_steps = 40;
  c.landscape.points = 11;
  c.sharpness.basin_directions = 3;
  c.sharpness.measure_probes = 4;
  c.features.draws = 4;
}

/// For figures that are published: narrow intervals, more probes and steps, residuals of every pair.
void make_thorough(RunConfig& c) {
  c.eigs.max_steps = 1000;
  c.eigs.rtol_eigs = 1e-5;
  c.eigs.true_residuals = true;
  c.parts.block_hvps = 1000;
  c.accuracy.rtol_trace = 0.005;
  c.accuracy.density_w1 = 0.003;
  c.accuracy.max_hvps = 20'000;
  c.quadrature.probes = 4;
  c.quadrature.steps = 160;
  c.inputs.rtol_inputs = 1e-3;
  c.inputs.input_steps = 400;
  c.landscape.points = 41;
  c.sharpness.basin_directions = 20;
  c.sharpness.measure_probes = 40;
  c.features.draws = 32;
}

}  // namespace

void apply_preset(RunConfig& c) {
  switch (c.preset) {
    case Preset::kQuick: return make_quick(c);
    case Preset::kStandard: return;
    case Preset::kThorough: return make_thorough(c);
  }
}

}  // namespace hesspect
