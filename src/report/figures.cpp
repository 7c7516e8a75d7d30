#include "hesspect/report/figures.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <optional>

#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"
#include "hesspect/spectrum/cumulative.h"
#include "hesspect/spectrum/spectral_mean.h"
#include "hesspect/spectrum/trace.h"
#include "measured_figures.h"
#include "population.h"
#include "tail.h"

namespace hesspect {
namespace {

constexpr double kStandsOut = 1.5;  // λ_k over λ_{k+1} at least, for k outliers
constexpr std::size_t kFifth = 4;
constexpr std::int64_t kMostDegrees = 1'000'000;  // of freedom: more are as good as infinitely many
/// Residuals that more products would not make smaller: 10 ε of the largest |λ| is in each of them (docs/theory.md).
constexpr double kRoundingFloor = 25;
constexpr double kEpsilon32 = 1.2e-7, kEpsilon64 = 2.3e-16;

Figure missing(const std::string& key, const std::string& why) {
  Figure figure;
  figure.key = key;
  figure.missing = why;
  return figure;
}

/// Says of a number that is none that it is none.
void check_finite(std::vector<Figure>& figures) {
  for (Figure& figure : figures)
    if (figure.known() && !std::isfinite(figure.value)) {
      const std::string key = figure.key, of = figure.of;
      figure = missing(key, "it came out as no finite number: the result is broken, or lacks what it is made of");
      figure.of = of;
    }
}

std::string percent_text(double share) { return format_number(100 * share) + " %"; }

/// The computed eigenvalues from both ends of the spectrum.
struct Ends {
  std::vector<EigenEstimate> largest;     // positive or not, largest first, without a gap
  std::optional<EigenEstimate> smallest;  // of all
};

Ends ends_of(const RunResult& r) {
  Ends ends;
  if (!r.eigenvalues) return ends;
  const EigenResult& e = *r.eigenvalues;
  ends.largest = e.top;
  if (!e.bottom.empty()) ends.smallest = e.bottom.back();
  const bool is_whole = static_cast<std::int64_t>(e.top.size() + e.bottom.size()) == r.diagnostics.parameters;
  if (is_whole) ends.largest.insert(ends.largest.end(), e.bottom.begin(), e.bottom.end());
  // Of the largest magnitudes the positive ones are the largest eigenvalues, and the negative ones the smallest.
  for (const EigenEstimate& one : e.magnitude)
    if (one.value > 0)
      ends.largest.push_back(one);
    else if (!ends.smallest)
      ends.smallest = one;
  if (!ends.smallest && is_whole && !e.top.empty()) ends.smallest = e.top.back();
  return ends;
}

double largest_magnitude(const RunResult& r) {
  double largest = 0;
  if (r.eigenvalues)
    for (const auto* list : {&r.eigenvalues->top, &r.eigenvalues->bottom, &r.eigenvalues->magnitude})
      for (const EigenEstimate& e : *list) largest = std::max(largest, std::abs(e.value));
  return largest;
}

/// By Kaniel's and Saad's bound an eigenvalue's error falls as g^-2q, its residual as g^-q, g = (√γ + √(1 + γ))², with
/// γ the distance to its neighbour over that neighbour's to the far end.
/// Source: Golub & Van Loan, Matrix Computations 4e, §10.1.5
Falling falling_of(const RunResult& r, const EigenEstimate& e, double neighbour, double far_end) {
  Falling falling;
  if (!r.eigenvalues) return falling;
  falling.products = static_cast<double>(r.eigenvalues->steps);
  const double epsilon = r.process.dtype == "float64" ? kEpsilon64 : kEpsilon32;
  if (e.residual <= kRoundingFloor * epsilon * largest_magnitude(r)) return falling;
  const double gap = std::abs(e.value - neighbour), rest = std::abs(neighbour - far_end);
  if (!(gap > 0) || !(rest > 0)) return falling;
  const double gamma = gap / rest, growth = std::pow(std::sqrt(gamma) + std::sqrt(1 + gamma), 2);
  falling.rate = (e.error < e.residual ? 2 : 1) * std::log(growth);
  return falling;
}

Figure eigenvalue_figure(const std::string& key, const EigenEstimate& e) {
  Figure figure;
  figure.key = key;
  figure.value = e.value;
  if (std::isfinite(e.error)) {
    figure.lower = e.value - std::abs(e.error);
    figure.upper = e.value + std::abs(e.error);
    figure.interval = "Lanczos error bound";
  }
  if (!e.converged) figure.note = "not converged";
  return figure;
}

Figure largest_eigenvalue(const RunResult& r, const Ends& ends) {
  if (ends.largest.empty())
    return missing("lambda_1", "no largest eigenvalue was computed: 'eigs' or 'analyze' with --top");
  Figure figure = eigenvalue_figure("lambda_1", ends.largest.front());
  const double far = ends.smallest ? ends.smallest->value : 0;
  const double next = ends.largest.size() > 1 ? ends.largest[1].value : far;
  figure.falling = falling_of(r, ends.largest.front(), next, far);
  return figure;
}

Figure eigenvalue_ratio(const RunResult& r, const Ends& ends) {
  if (ends.largest.size() <= kFifth) return missing("lambda_ratio", "fewer than five eigenvalues: --top 5 or more");
  const EigenEstimate &first = ends.largest.front(), &fifth = ends.largest[kFifth];
  if (!(fifth.value > 0)) return missing("lambda_ratio", "the fifth eigenvalue is not above zero");
  Figure figure;
  figure.key = "lambda_ratio";
  figure.value = first.value / fifth.value;
  if (fifth.value > fifth.error) {
    figure.lower = (first.value - first.error) / (fifth.value + fifth.error);
    figure.upper = (first.value + first.error) / (fifth.value - fifth.error);
    figure.interval = "Lanczos error bounds of both";
  }
  const double far = ends.smallest ? ends.smallest->value : 0;
  const double next = ends.largest.size() > kFifth + 1 ? ends.largest[kFifth + 1].value : far;
  figure.falling = falling_of(r, fifth, next, far);
  return figure;
}

Figure smallest_eigenvalue(const RunResult& r, const Ends& ends) {
  if (!ends.smallest)
    return missing("lambda_min", "no smallest eigenvalue was computed: 'eigs' or 'analyze' with --bottom");
  Figure figure = eigenvalue_figure("lambda_min", *ends.smallest);
  const double far = ends.largest.empty() ? 0 : ends.largest.front().value;
  const auto& bottom = r.eigenvalues->bottom;
  const double next = bottom.size() > 1 ? bottom[bottom.size() - 2].value : far;
  figure.falling = falling_of(r, *ends.smallest, next, far);
  const double floor = noise_floor(r);
  if (std::abs(figure.value) <= floor) figure.note = "within the noise floor of " + format_number(floor) + ": zero";
  return figure;
}

/// factor / λ₁
Figure stable_step(const std::string& key, const Figure& largest, double factor, const std::string& of) {
  if (!largest.known()) return missing(key, largest.missing);
  if (!(largest.value > 0)) return missing(key, "no eigenvalue is above zero: no step is too large");
  Figure figure = largest;
  figure.key = key;
  figure.of = of;
  figure.value = factor / largest.value;
  figure.lower = factor / largest.upper;
  figure.upper = largest.lower > 0 ? factor / largest.lower : Figure::kUnknown;
  figure.interval = "from that of the largest eigenvalue";
  return figure;
}

Figure trace_figure(const RunResult& r) {
  if (!r.trace) return missing("trace", "no trace was computed: 'trace' or 'analyze'");
  const TraceEstimate& t = *r.trace;
  Figure figure;
  figure.key = "trace";
  figure.value = t.value;
  if (std::isfinite(t.half_width)) {
    figure.lower = t.value - t.half_width;
    figure.upper = t.value + t.half_width;
    figure.interval = percent_text(t.confidence) + ", over probes";
  }
  const bool faster = t.method == "hutch++" || t.method == "xtrace" || t.method == "xnystrace";
  figure.falling = {static_cast<double>(faster ? std::max(t.products, t.samples) : t.samples), faster ? 1 : 0.5, 0};
  return figure;
}

Figure mean_eigenvalue(const RunResult& r, const Figure& trace) {
  if (!trace.known()) return missing("mean_eigenvalue", trace.missing);
  const double n = static_cast<double>(r.diagnostics.parameters);
  if (!(n > 0)) return missing("mean_eigenvalue", "the result does not say how many parameters there are");
  Figure figure = trace;
  figure.key = "mean_eigenvalue";
  figure.value /= n;
  figure.lower /= n;
  figure.upper /= n;
  return figure;
}

/// Parameters that the probes' quadratures are over: all other eigenvalues are exactly zero, and so is every f(0) here.
std::int64_t dimensions(const RunResult& r) {
  const Diagnostics& d = r.diagnostics;
  return d.parameters_in_use > 0 ? d.parameters_in_use : d.parameters;
}

bool has_probes(const RunResult& r) { return !r.quadrature.empty() && r.cumulative && r.diagnostics.parameters > 0; }

const char* const kNoProbes = "no density was computed: 'density' or 'analyze'";

/// @throws InputError for what is no probability
double checked(double confidence) {
  if (!(confidence > 0 && confidence < 1))
    throw InputError("the result has a confidence of " + format_number(confidence) + ": it is broken");
  return confidence;
}

double confidence_of(const RunResult& r) { return checked(r.cumulative ? r.cumulative->confidence : 0.9); }

std::string probes_interval(const RunResult& r) {
  const std::size_t probes = r.quadrature.size();
  return percent_text(confidence_of(r)) + ", " + (probes < 3 ? "a priori for " : "over ") + std::to_string(probes) +
         (probes == 1 ? " probe" : " probes") + ", and a bound of the quadrature's error";
}

Falling falling_of_mean(const SpectralMean& mean) {
  return {static_cast<double>(mean.products), mean.sampling > mean.quadrature ? 0.5 : 1.0, 0};
}

SpectralMean mean_of(const RunResult& r, const std::function<double(double)>& f) {
  return spectral_mean(r.quadrature, dimensions(r), f, confidence_of(r));
}

Figure frobenius_norm(const RunResult& r) {
  if (!has_probes(r)) return missing("frobenius", kNoProbes);
  const double n = static_cast<double>(dimensions(r));
  // λ² is monotone on either side of zero.
  const SpectralMean above = mean_of(r, [](double x) { return x > 0 ? x * x : 0; });
  const SpectralMean below = mean_of(r, [](double x) { return x < 0 ? x * x : 0; });
  const double mean = above.value + below.value, width = above.half_width() + below.half_width();
  Figure figure;
  figure.key = "frobenius";
  figure.value = std::sqrt(n * mean);
  figure.lower = std::sqrt(n * std::max(0.0, mean - width));
  figure.upper = std::sqrt(n * (mean + width));
  figure.interval = probes_interval(r);
  figure.falling = falling_of_mean(above);
  return figure;
}

struct Bounds {
  double lower, upper;
};

/// Of a share whose variance goes as share · (1 − share): those true shares of which what was found lies within
/// `quantile` of their own standard errors. Where few eigenvalues make the share an interval by the standard error at
/// what was found is too narrow above. Source: Wilson (1927).
Bounds score_interval(double share, double standard_error, double quantile) {
  const double variance = share * (1 - share);
  if (!(variance > 0))
    return {std::max(0.0, share - quantile * standard_error), std::min(1.0, share + quantile * standard_error)};
  const double q = quantile * quantile * standard_error * standard_error / variance;
  const double middle = (share + q / 2) / (1 + q), width = std::sqrt(q * variance + q * q / 4) / (1 + q);
  return {std::max(0.0, middle - width), std::min(1.0, middle + width)};
}

Figure negative_mass(const RunResult& r) {
  if (!r.cumulative || r.cumulative->lambda.empty()) return missing("negative_mass", kNoProbes);
  const CumulativeDensity& c = *r.cumulative;
  const double floor = noise_floor(r);
  Figure figure;
  figure.key = "negative_mass";
  if (floor > c.zero_width) {
    const BandedShare share = share_up_to(c, -floor);
    figure.value = share.value;
    figure.lower = share.lower;
    figure.upper = share.upper;
  } else {
    // Over three probes and more the standard error is itself from their spread.
    const double quantile =
        c.probes >= 3 ? student_quantile(checked(c.confidence), c.probes - 1) : normal_quantile(checked(c.confidence));
    const Bounds bounds = score_interval(c.negative_mass.value, c.negative_mass.standard_error, quantile);
    figure.value = c.negative_mass.value;
    figure.lower = bounds.lower;
    figure.upper = bounds.upper;
  }
  figure.interval = percent_text(c.confidence) + ", probes and quadrature";
  figure.note = "noise floor f = " + format_number(floor);
  double products = 0;
  for (const ProbeQuadrature& q : r.quadrature) products += static_cast<double>(q.alpha.size());
  figure.falling = {products, 1, 0};
  return figure;
}

Figure negative_share(const RunResult& r) {
  if (!has_probes(r)) return missing("negative_share", kNoProbes);
  const double floor = noise_floor(r);
  const SpectralMean above = mean_of(r, [floor](double x) { return x > floor ? x : 0; });
  const SpectralMean below = mean_of(r, [floor](double x) { return x < -floor ? -x : 0; });
  if (!(above.value + below.value > 0)) return missing("negative_share", "all eigenvalues are zero");
  const auto at_least = [](const SpectralMean& m) { return std::max(0.0, m.value - m.half_width()); };
  const auto at_most = [](const SpectralMean& m) { return m.value + m.half_width(); };
  Figure figure;
  figure.key = "negative_share";
  figure.value = below.value / (above.value + below.value);
  const double least = at_least(below) + at_most(above), most = at_most(below) + at_least(above);
  figure.lower = least > 0 ? at_least(below) / least : 0;
  figure.upper = most > 0 ? at_most(below) / most : 1;
  figure.interval = probes_interval(r);
  figure.falling = falling_of_mean(below);
  return figure;
}

/// Outliers, the bulk's edge and its exponent.
void add_bulk(std::vector<Figure>& figures, const RunResult& r) {
  const std::vector<double> leading = leading_eigenvalues(r);
  std::size_t outliers = 0;
  double gap = kStandsOut;
  for (std::size_t k = 0; k + 1 < leading.size(); ++k)
    if (leading[k] >= gap * leading[k + 1]) {
      gap = leading[k] / leading[k + 1];
      outliers = k + 1;
    }
  if (leading.size() < 2) {
    figures.push_back(missing("outliers", "fewer than two leading eigenvalues are known: --top"));
    figures.push_back(missing("bulk_edge", "as outliers"));
  } else {
    Figure count, edge;
    count.key = "outliers";
    count.value = static_cast<double>(outliers);
    count.note = outliers > 0 ? "the gap is a factor of " + format_number(gap) : "no gap is a factor of 1.5";
    count.note += " among the " + std::to_string(leading.size()) + " leading eigenvalues known";
    if (outliers + 1 == leading.size()) count.note += ", and it is the last of these: there may be more (--top)";
    edge.key = "bulk_edge";
    edge.value = leading[outliers];
    figures.push_back(count);
    figures.push_back(edge);
  }
  if (!r.cumulative || r.cumulative->lambda.empty()) {
    figures.push_back(missing("bulk_exponent", kNoProbes));
    return;
  }
  const double edge = leading.size() >= 2 ? leading[outliers] : r.cumulative->lambda.back();
  figures.push_back(bulk_exponent(*r.cumulative, r.diagnostics.parameters, edge, noise_floor(r)));
}

/// How far training has moved the parameters, and the layers' traces weighted by it.
void add_distance(std::vector<Figure>& figures, const RunResult& r) {
  if (!r.initial) return;
  const InitialDistance& initial = *r.initial;
  Figure distance = missing("distance", "");
  distance.value = initial.distance;
  if (r.diagnostics.parameters_in_use < r.diagnostics.parameters)
    distance.note = "over the " + format_number(static_cast<double>(r.diagnostics.parameters_in_use)) +
                    " parameters in use alone: the others have no curvature";
  figures.push_back(distance);
  const bool weighted = !r.layers.empty() && std::isfinite(initial.weighted_trace.value);
  Figure sum = missing("weighted_trace", weighted ? "" : "no traces of parameter tensors: 'trace' or 'analyze'");
  if (weighted) {
    sum.value = initial.weighted_trace.value;
    if (std::isfinite(initial.half_width)) {
      sum.lower = sum.value - initial.half_width;
      sum.upper = sum.value + initial.half_width;
      sum.interval = percent_text(checked(initial.confidence)) + ", over " +
                     format_number(static_cast<double>(initial.samples)) + " probes";
    }
    sum.falling = {static_cast<double>(initial.samples), 0.5, 0};
  }
  figures.push_back(sum);
}

/// Of the samples that norms are from, the fewest that the whole or any block has: Student's degrees go by them.
std::int64_t fewest_norm_samples(const RunResult& r) {
  std::int64_t fewest = std::numeric_limits<std::int64_t>::max();
  const auto take = [&](const std::optional<TraceEstimate>& trace, const Estimate& norm_sq) {
    if (trace && norm_sq.standard_error > 0) fewest = std::min(fewest, trace->samples);
  };
  take(r.trace, r.blocks->norm_sq);
  for (const BlockResult& block : r.blocks->each) take(block.trace, block.norm_sq);
  return fewest;
}

/// What the blocks are together.
void add_block_figures(std::vector<Figure>& figures, const RunResult& r) {
  if (!r.blocks) return;
  Figure share = missing("off_block_share", r.blocks->off_block_obstacle);
  share.value = r.blocks->off_block_share.value;
  const double error = r.blocks->off_block_share.standard_error;
  const std::int64_t samples = fewest_norm_samples(r);
  if (share.known() && std::isfinite(error) && samples >= 2) {
    const double confidence = checked(r.trace ? r.trace->confidence : 0.9);
    const double width = error > 0 ? student_quantile(confidence, std::min(samples, kMostDegrees) - 1) * error : 0;
    share.lower = std::max(0.0, share.value - width);
    share.upper = std::min(1.0, share.value + width);
    share.interval = percent_text(confidence) + ", over samples";
  }
  share.note = std::to_string(r.blocks->each.size()) + " blocks";
  figures.push_back(share);
  Figure distance = missing("js_distance", std::isfinite(r.blocks->js_mean) ? "" : "the blocks have no densities");
  distance.value = r.blocks->js_mean;
  if (distance.known() && std::isfinite(r.blocks->js_mean_lower)) {
    distance.lower = r.blocks->js_mean_lower;
    distance.upper = r.blocks->js_mean_upper;
    distance.interval = "over probes, by this kernel and these steps";
  }
  if (distance.known()) distance.note = "kernel of standard deviation " + format_number(r.blocks->js_sigma);
  figures.push_back(distance);
}

}  // namespace

std::vector<std::vector<Figure>> block_figures(const RunResult& r) {
  std::vector<std::vector<Figure>> all;
  if (!r.blocks) return all;
  for (const BlockResult& block : r.blocks->each) {
    RunResult alone;  // the block as a matrix of its own
    alone.eigenvalues = block.eigenvalues;
    alone.trace = block.trace;
    alone.diagnostics.parameters = block.parameters;
    alone.process.dtype = r.process.dtype;
    std::vector<Figure> figures;
    for (Figure& figure : figures_of(alone, {}))
      for (const char* key : {"lambda_1", "lambda_min", "step_gd", "trace", "mean_eigenvalue"})
        if (figure.key == key) {
          figure.of = block.name;
          figures.push_back(std::move(figure));
          break;
        }
    all.push_back(std::move(figures));
  }
  return all;
}

double noise_floor(const RunResult& r) {
  double floor = kZeroWidth * largest_magnitude(r);
  if (r.cumulative && std::isfinite(r.cumulative->zero_width)) floor = std::max(0.0, r.cumulative->zero_width);
  if (std::isfinite(r.diagnostics.precision.moved)) floor = std::max(floor, 2 * r.diagnostics.precision.moved);
  return floor;
}

std::vector<double> leading_eigenvalues(const RunResult& r) {
  const double floor = noise_floor(r);
  std::vector<double> computed, exact;
  for (const EigenEstimate& e : ends_of(r).largest)
    if (e.converged && e.value > floor)
      computed.push_back(e.value);
    else
      break;
  if (has_probes(r)) {
    const ReducedQuadrature q = reduced(r.quadrature.front(), dimensions(r));
    for (std::size_t k = q.node.size(); k-- > 0 && q.exact[k] != 0 && q.node[k] > floor;) exact.push_back(q.node[k]);
  }
  return exact.size() > computed.size() ? exact : computed;
}

Figure effective_dimension(const RunResult& r, double c) {
  if (!has_probes(r)) throw UsageError("the effective dimension needs the density's probes");
  const double n = static_cast<double>(dimensions(r));
  const SpectralMean mean = mean_of(r, [c](double x) { return x > 0 ? x / (x + c) : 0; });
  Figure figure;
  figure.key = "effective_dimension";
  figure.of = "c = " + format_number(c);
  figure.value = n * mean.value;
  double leading = 0;  // these alone are known to count so much
  for (const double x : leading_eigenvalues(r)) leading += x / (x + c);
  figure.lower = std::max(n * (mean.value - mean.half_width()), std::min(leading, figure.value));
  figure.upper = n * std::min(1.0, mean.value + mean.half_width());
  figure.interval = probes_interval(r);
  figure.falling = falling_of_mean(mean);
  return figure;
}

std::vector<Figure> layer_figures(const RunResult& r) {
  std::vector<Figure> figures;
  const double samples = r.trace ? static_cast<double>(r.trace->samples) : 0;
  const double confidence = checked(r.trace ? r.trace->confidence : 0.9);
  for (const LayerEstimate& layer : r.layers) {
    Figure figure;
    figure.key = "layer_trace";
    figure.of = layer.name;
    figure.value = layer.trace.value;
    if (std::isfinite(layer.trace.standard_error) && samples >= 2) {
      const double width =
          sampled_quantile(confidence, static_cast<std::int64_t>(samples)) * layer.trace.standard_error;
      figure.lower = layer.trace.value - width;
      figure.upper = layer.trace.value + width;
      figure.interval = percent_text(confidence) + " of each, over " + format_number(samples) + " probes";
    }
    figure.falling = {samples, 0.5, 0};
    figures.push_back(figure);
  }
  check_finite(figures);
  add_layer_population(r, figures);
  return figures;
}

std::vector<Figure> weighted_layer_figures(const RunResult& r) {
  std::vector<Figure> figures;
  if (!r.initial) return figures;
  const std::vector<Figure> traces = layer_figures(r);
  for (const LayerDistance& layer : r.initial->layers) {
    const auto same = std::ranges::find(traces, layer.name, &Figure::of);
    if (same == traces.end()) {
      figures.push_back(missing("layer_weighted_trace", "no traces of parameter tensors: 'trace' or 'analyze'"));
      figures.back().of = layer.name;
      continue;
    }
    Figure figure = *same;
    const double weight = layer.distance * layer.distance;
    figure.key = "layer_weighted_trace";
    figure.value *= weight;
    figure.lower *= weight;
    figure.upper *= weight;
    figure.data_error *= weight;
    figure.population_lower *= weight;
    figure.population_upper *= weight;
    figures.push_back(figure);
  }
  check_finite(figures);
  return figures;
}

std::vector<Figure> figures_of(const RunResult& r, const FigureOptions& options) {
  const Ends ends = ends_of(r);
  std::vector<Figure> figures;
  const Figure largest = largest_eigenvalue(r, ends);
  figures.push_back(largest);
  figures.push_back(eigenvalue_ratio(r, ends));
  figures.push_back(smallest_eigenvalue(r, ends));
  const double beta = options.momentum;
  const std::string with = "β = " + format_number(beta);
  figures.push_back(stable_step("step_gd", largest, 2, ""));
  figures.push_back(stable_step("step_momentum", largest, 2 * (1 + beta), with));
  figures.push_back(stable_step("step_nesterov", largest, 2 * (1 + beta) / (1 + 2 * beta), with));
  const Figure trace = trace_figure(r);
  figures.push_back(trace);
  figures.push_back(mean_eigenvalue(r, trace));
  figures.push_back(frobenius_norm(r));
  if (!has_probes(r)) {
    figures.push_back(missing("effective_dimension", kNoProbes));
  } else {
    std::vector<double> constants;
    if (options.damping > 0) constants.push_back(options.damping);
    const double top = largest.known() ? largest.value : r.cumulative->range_hi;
    for (const double share : {1e-1, 1e-2, 1e-3})
      if (top > 0) constants.push_back(std::strtod(format_number(share * top).c_str(), nullptr));  // as it is told
    for (const double c : constants) figures.push_back(effective_dimension(r, c));
    if (constants.empty()) figures.push_back(missing("effective_dimension", "no eigenvalue is above zero"));
  }
  figures.push_back(negative_mass(r));
  figures.push_back(negative_share(r));
  add_bulk(figures, r);
  // A result of another command has nothing of a spectrum, and need not say so of each.
  if (!r.eigenvalues && !r.trace && !r.cumulative && (r.sharpness || r.inputs || r.landscape || r.features))
    figures.clear();
  add_distance(figures, r);
  for (Figure& measured : measured_figures(r)) figures.push_back(std::move(measured));
  add_block_figures(figures, r);
  check_finite(figures);
  add_population(r, figures);
  return figures;
}

}  // namespace hesspect
