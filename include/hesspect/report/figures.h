// What a result says of its model, number by number: each with an interval, what it means, where it is from, and what
// the literature says against it.
//
//   for (const Figure& f : figures_of(read_result("r.h5"), {})) … definition_of(f.key).against …
//
// Intervals are of the run (Lanczos, probes, steps, precision), on the data that the run had. How far the same figure
// would be off on other rows stands beside them where the run has told groups of rows apart (spectrum/data_error.h).
#pragma once

#include <limits>
#include <string>
#include <vector>

#include "hesspect/io/result_file.h"

namespace hesspect {

/// How a figure's half width falls as more products are taken: as products^-power, or as exp(-rate · products).
/// Neither: more products change nothing (it is rounding, or no estimate).
struct Falling {
  double products = 0;  // taken for it so far
  double power = 0;
  double rate = 0;
};

struct Figure {
  static constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

  std::string key;  // of its definition: "lambda_1"
  std::string of;   // what it is of, where there are several: a constant ("c = 0.4"), a block
  double value = kUnknown;
  double lower = kUnknown, upper = kUnknown;  // NaN: not known
  std::string interval;                       // what the interval is from; empty: there is none
  double data_error = kUnknown;               // standard error that the choice of rows makes
  /// Of what the population has that the rows were drawn from: by both errors.
  double population_lower = kUnknown, population_upper = kUnknown;
  std::string note;     // what its reader should know of this one
  std::string missing;  // why there is no value
  Falling falling;

  bool known() const { return missing.empty(); }
  bool has_interval() const { return lower == lower && upper == upper; }
  bool has_population() const { return population_lower == population_lower && population_upper == population_upper; }
};

/// What a figure is, for all results alike.
struct Definition {
  std::string key, name, symbol, unit;
  std::string definition;  // what it is, in a sentence or two
  std::string source;      // where it is from
  std::string against;     // what the literature says against reading much into it
};

const std::vector<Definition>& definitions();
/// @throws std::out_of_range for an unknown key
const Definition& definition_of(const std::string& key);

/// A result and what it is called: its file's name.
struct NamedResult {
  std::string name;
  RunResult result;
};

struct FigureOptions {
  double momentum = 0.9;  // of the stable step of momentum
  double damping = 0;     // a further constant c of the effective dimension; 0: none
};

/// In the order of the definitions; those that the result doesn't hold say why.
/// @throws NumericalError, UsageError for a broken quadrature
std::vector<Figure> figures_of(const RunResult& result, const FigureOptions& options);

/// The effective dimension Σ λ/(λ + c) over the positive eigenvalues, with what it is known to.
/// @param c  above 0
/// @throws as spectral_mean; UsageError where the result holds no probes
Figure effective_dimension(const RunResult& result, double c);

/// The traces of the parameter tensors, as figures "layer_trace" of their names.
std::vector<Figure> layer_figures(const RunResult& result);

/// The traces of the parameter tensors weighted by how far these have moved, as figures "layer_weighted_trace" of their
/// names; nothing where the result has no initial weights. @return [tensors], in the order of result.initial
std::vector<Figure> weighted_layer_figures(const RunResult& result);

/// What each diagonal block has of λ₁, λₙ, the stable step, trace and mean eigenvalue, with the block's name in `of`.
/// @return [blocks], in the result's order
std::vector<std::vector<Figure>> block_figures(const RunResult& result);

/// What `sharpness` found of each diagonal block: λ₁ and the checked step of gradient descent, and both as Adam sees
/// the block where there were second moments; the block's name in `of`. @return [blocks], in the result's order
std::vector<std::vector<Figure>> block_step_figures(const RunResult& result);

/// The eigenvalues that are known from the largest on, without a gap: computed ones, or the first probe's exact points
/// where these are more. Positive ones alone, largest first.
std::vector<double> leading_eigenvalues(const RunResult& result);

/// Below it an eigenvalue can't be told from zero: the zero width, or what the precision of products moves.
double noise_floor(const RunResult& result);

}  // namespace hesspect
