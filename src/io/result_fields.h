// The result file's schema: one list of fields for the writer, the reader and the printed schema, from which
// docs/results.md and python/hesspect have theirs (launch/schema writes them).
//
// `fields(visitor, struct)` names a group's datasets. The visitor's verbs are the kinds of fields:
//   v(name, value, label)                   a number, a text, or a list of texts
//   v.grid(name, values, label)             an ascending coordinate: the columns that follow go along it
//   v.axis(name, rows, field, label)        the same, of one field of each row, in any order
//   v.index(name, rows, label)              the same, counted from 0
//   v.dimension(name)                       the columns that follow have an axis without a coordinate
//   v.column(name, rows, [field,] label)    an entry for each row
//   v.second_grid(name, values, label)      an ascending coordinate of the second axis of the tables that follow
//   v.second_axis(name, lengths, label)     how far each row of the tables that follow goes
//   v.table(name, rows, [field,] label)     [rows, longest row], NaN beyond a row's end
//   v.derived…(name, value, label)          written for people, and never read
//   v.group(name, class, struct)            a group within; an optional or a list is not there where it is empty
//   v.groups(name, class, object, list, field)  a group of groups, one for each of the object's list, with the name
//   that
//                                           the field says; not there where the object is not
//   v.plot(signal, axes, title)             what viewers draw of the group; "{matrix}" is the run's curvature
// A label's third part is the layout from which on all results have the field; earlier ones are read without it. A new
// field has kVersion + 1: it is written, and results of this layout that lack it stay readable.
// A struct that is not const is being read: what the file has in another shape goes through a local variable.
#pragma once

#include <cmath>
#include <concepts>
#include <type_traits>
#include <utility>

#include "hesspect/io/result_file.h"
#include "result_schema.h"

namespace hesspect::schema {

template <class T, class U>
concept Is = std::same_as<std::remove_const_t<T>, U>;

template <class T>
inline constexpr bool kRead = !std::is_const_v<T>;

/// A number with its standard error.
void estimate(auto& v, const std::string& name, auto& e, const std::string& what) {
  v(name, e.value, {what});
  v(name + "_error", e.standard_error, {what + ": standard error over probes; NaN: not known"});
}

void fields(auto& v, Is<Density> auto& d) {
  v.plot("density", {"lambda"}, "Spectral density of the {matrix}");
  v.attribute("SILX_style", R"({"axes_scale_types": ["linear"], "signal_scale_type": "log"})");
  v.grid("lambda", d.lambda, {"Eigenvalue", kCurvature});
  v.column("density", d.density, {"Spectral density", kDensity});
  v.column("density_errors", d.density_errors, {"Standard error of the density over probes", kDensity});
  v("sigma", d.sigma, {"Standard deviation of the Gaussian kernel", kCurvature});
}

template <Is<CumulativeDensity> C>
void fields(auto& v, C& c) {
  v.plot("cumulative", {"lambda"}, "Cumulative spectral density of the {matrix}");
  // The band is not symmetric: viewers draw its edges as further curves.
  v.attribute("auxiliary_signals", std::vector<std::string>{"cumulative_lower", "cumulative_upper"});
  v.grid("lambda", c.lambda, {"Eigenvalue", kCurvature});
  v.column("cumulative", c.cumulative, {"Share of the eigenvalues up to lambda, lambda included"});
  v.column("cumulative_lower", c.lower, {"Lower edge of the cumulative density's band"});
  v.column("cumulative_upper", c.upper, {"Upper edge of the cumulative density's band"});
  v("confidence", c.confidence, {"Probability that band and bound claim"});
  v("band", c.band, {"What the band is from: jackknife over probes, a priori, or exact"});
  v("probes", c.probes, {"Probes"});
  v("converged", c.converged, {"1 where w1 is what was asked for"});
  v("w1", c.w1, {"Bound of the Wasserstein-1 distance to the true density", kCurvature});
  v("w1_sampling", c.w1_sampling, {"Part of the bound that comes from the number of probes", kCurvature});
  v("w1_quadrature", c.w1_quadrature, {"Part of the bound that comes from the number of steps", kCurvature});
  v("w1_precision", c.w1_precision,
    {"Part of the bound that comes from the precision of products; 0 in full precision", kCurvature, kVersion + 1});
  v("exact_points", c.exact_points, {"Eigenvalues taken out as points of their own weight, mean over probes"});
  v("zero_width", c.zero_width, {"|lambda| up to which an eigenvalue counts as zero", kCurvature});
  estimate(v, "weight_at_zero", c.weight_at_zero, "Share of the eigenvalues that are zero");
  estimate(v, "negative_mass", c.negative_mass, "Share of the eigenvalues below zero");
  v.dimension("power");
  const std::string powers = "(" + std::string(kCurvature) + ")^k";
  v.column("moments", c.moments, &Estimate::value, {"Mean of lambda^k over the eigenvalues, k = 1, 2, ...", powers});
  v.column("moments_error", c.moments, &Estimate::standard_error,
           {"Standard error of the moments over probes; NaN: not known", powers});
  v.dimension("2", 2);
  std::vector<double> range{c.range_lo, c.range_hi};
  v.column("range", range, {"Where the spectrum lies: the outermost Ritz values and their bounds", kCurvature});
  if constexpr (kRead<C>) c.range_lo = range[0], c.range_hi = range[1];
}

template <Is<EigenResult> E>
void fields(auto& v, E& e) {
  v.plot("eigenvalue", {"index"}, "Extreme eigenvalues of the {matrix}");
  std::vector<EigenEstimate> all;
  std::vector<std::string> which;
  for (const auto& [list, name] : {std::pair(&e.top, "top"), {&e.bottom, "bottom"}, {&e.magnitude, "magnitude"}}) {
    all.insert(all.end(), list->begin(), list->end());
    which.insert(which.end(), list->size(), name);
  }
  v.index("index", all, {"Position in the list"});
  v.column("eigenvalue", all, &EigenEstimate::value,
           {"Eigenvalues: the largest first, then the smallest ones, largest of them first; or largest magnitude first",
            kCurvature});
  v.derived_column("which", which, {"What the eigenvalue is one of: top, bottom or magnitude", "", 2});
  v.column("residual", all, &EigenEstimate::residual,
           {"Bound of the norm of H y - theta y for the unit Ritz vector y, rounding included", kCurvature});
  v.column("true_residual", all, &EigenEstimate::true_residual,
           {"Norm of H y - theta y by a product of its own; NaN: not measured", kCurvature, 2});
  v.column("error", all, &EigenEstimate::error,
           {"Bound of the eigenvalue's error: the residual, or residual^2 / gap where it stands apart", kCurvature, 2});
  v.column("converged", all, &EigenEstimate::converged, {"1 where the residual met the tolerance"});
  auto top = static_cast<std::int64_t>(e.top.size()), bottom = static_cast<std::int64_t>(e.bottom.size());
  v("n_top", top, {"How many of them are the largest"});
  v("n_bottom", bottom, {"How many of them are the smallest"});
  v.derived("n_magnitude", static_cast<std::int64_t>(e.magnitude.size()),
            {"How many of them are those of largest magnitude", "", 2});
  v("method", e.method, {"Method: lanczos, block lanczos or power", "", 2});
  v("steps", e.steps, {"Products that served them, those of true residuals not included"});
  v("residual_products", e.residual_products, {"Products for true residuals", "", 2});
  v("thick_restarts", e.thick_restarts, {"Thick restarts of the Lanczos run", "", 2});
  v("all_converged", e.converged, {"1 where all of them converged"});
  v("exhausted", e.exhausted, {"1 where the Krylov space closed before as many were found"});
  if constexpr (kRead<E>) {
    if (v.layout() < 2)
      for (auto& one : all) one.error = one.residual;
    v.require(top >= 0 && bottom >= 0 && top <= std::ssize(all) && bottom <= std::ssize(all) - top,
              " has parts of different lengths");
    const auto middle = all.begin() + top, end = middle + bottom;
    e.top.assign(all.begin(), middle);
    e.bottom.assign(middle, end);
    e.magnitude.assign(end, all.end());
  }
}

template <Is<TraceEstimate> T>
void fields(auto& v, T& t) {
  v("value", t.value, {"Trace", kCurvature});
  v("stderr", t.standard_error, {"Standard error of the trace; NaN: not known", kCurvature});
  v("half_width", t.half_width, {"Half width of the trace's confidence interval; NaN: not known", kCurvature, 2});
  v("confidence", t.confidence, {"Probability that the interval claims", "", 2});
  v("samples", t.samples, {"Random vectors that the trace is from"});
  v("products", t.products, {"Products that were taken for the trace alone", "", 2});
  v("captured", t.captured, {"Part of the trace that the deflated space has, exactly", kCurvature, 2});
  v("deflated", t.deflated, {"Dimensions of the deflated space", "", 2});
  v("method", t.method, {"Method: deflated, hutchinson, hutch++, xtrace or xnystrace; of a block also exact", "", 2});
  v("converged", t.converged, {"1 where the half width is what was asked for", "", 2});
  if constexpr (kRead<T>)
    if (v.layout() < 2) {  // Hutchinson's, and 0 where the error was not known
      t.method = "hutchinson";
      t.half_width = Diagnostics::kNotMeasured;
      if (t.samples < 2) t.standard_error = Diagnostics::kNotMeasured;
    }
}

/// The trace's samples, the captured part included.
template <Is<std::vector<DeflatedSample>> S>
void fields_of_samples(auto& v, S& samples, double captured) {
  if (!v.there("sample", samples)) return;
  std::vector<double> traces;
  for (const auto& s : samples) traces.push_back(captured + s.quadratic_form);
  v.axis("sample_probe", samples, &DeflatedSample::probe, {"Number of each sample's random vector", "", 2});
  v.column(
      "sample", traces,
      {"What each random vector says the trace is: the captured part and z'Hz of the rest; their mean is the trace",
       kCurvature, 2});
  v.column("sample_product_norm_sq", samples, &DeflatedSample::product_norm_sq,
           {"Squared norm of each sample's product, the captured part taken out", kCurvatureSq, 2});
  if constexpr (kRead<S>)
    for (std::size_t i = 0; i < samples.size(); ++i) samples[i].quadratic_form = traces[i] - captured;
}

void fields(auto& v, Is<std::vector<LayerEstimate>> auto& layers) {
  v.plot("mean", {"index"}, "Mean of the diagonal of the {matrix}, by parameter tensor");
  v.index("index", layers, {"Position in the model"});
  v.column("name", layers, &LayerEstimate::name, {"Parameter tensor"});
  v.column("size", layers, &LayerEstimate::size, {"Entries of the tensor"});
  const auto value = [](auto& layer) -> auto& { return layer.trace.value; };
  const auto error = [](auto& layer) -> auto& { return layer.trace.standard_error; };
  v.column("trace", layers, value, {"Trace of the tensor's diagonal block", kCurvature});
  v.column("trace_error", layers, error, {"Standard error of that trace; NaN: not known", kCurvature});
  std::vector<double> mean, mean_error;
  for (const LayerEstimate& layer : layers) {
    mean.push_back(layer.mean().value);
    mean_error.push_back(layer.mean().standard_error);
  }
  v.derived_column("mean", mean, {"Mean of the diagonal over the tensor's entries", kCurvature});
  v.derived_column("mean_error", mean_error, {"Standard error of that mean; NaN: not known", kCurvature});
}

void fields(auto& v, Is<InitialDistance> auto& d) {
  constexpr int kNew = kVersion + 1;
  constexpr const char* kWeighted = "loss";
  auto& layers = d.layers;
  v.plot("weighted_trace_of_layer", {"index"}, "Traces of the {matrix} by parameter tensor, weighted by the distance");
  v.index("index", layers, {"Position in the model", "", kNew});
  v.column("name", layers, &LayerDistance::name, {"Parameter tensor", "", kNew});
  v.column("entries", layers, &LayerDistance::entries,
           {"Entries of the tensor that the distance is over: those that vectors hold", "", kNew});
  v.column("distance_of_layer", layers, &LayerDistance::distance,
           {"Distance of the tensor from its initial values", "parameter", kNew});
  const auto value = [](auto& layer) -> auto& { return layer.weighted.value; };
  const auto error = [](auto& layer) -> auto& { return layer.weighted.standard_error; };
  v.column("weighted_trace_of_layer", layers, value,
           {"Trace of the tensor's diagonal block times the squared distance; NaN: no trace", kWeighted, kNew});
  v.column("weighted_trace_of_layer_error", layers, error, {"Its standard error; NaN: not known", kWeighted, kNew});
  v("distance", d.distance, {"Distance of all parameters from the initial ones", "parameter", kNew});
  v("weighted_trace", d.weighted_trace.value,
    {"Sum over tensors of trace times squared distance; NaN: no traces", kWeighted, kNew});
  v("weighted_trace_error", d.weighted_trace.standard_error,
    {"Its standard error over samples; NaN: not known", kWeighted, kNew});
  v("half_width", d.half_width, {"Half width of its confidence interval; NaN: not known", kWeighted, kNew});
  v("confidence", d.confidence, {"Probability that the interval claims", "", kNew});
  v("samples", d.samples, {"Random vectors that it is from", "", kNew});
  v("files", d.files, {"Files of the initial weights", "", kNew});
  v("files_sha256", d.sha256, {"SHA-256 of these files", "", kNew});
}

template <Is<std::vector<ProbeQuadrature>> P>
void fields(auto& v, P& probes) {
  v.plot("ritz", {"probe", "step"}, "Gauss quadrature of each probe");
  std::vector<std::int64_t> steps;
  std::vector<std::vector<double>> betas;  // the last one included
  for (const auto& p : probes) {
    steps.push_back(std::ssize(p.alpha));
    betas.push_back(p.beta);
    betas.back().push_back(p.beta_last);
  }
  v.axis("probe", probes, &ProbeQuadrature::probe, {"Number of the probe"});
  v.column("steps_taken", steps, {"Steps the probe took"});
  v.column("norm_sq", probes, &ProbeQuadrature::norm_sq, {"Squared norm of the probe"});
  v.column("breakdown", probes, &ProbeQuadrature::breakdown, {"1 where an invariant subspace was found"});
  v.column("orthogonality_loss", probes, &ProbeQuadrature::orthogonality_loss,
           {"Loss of orthogonality: largest entry of |(Q'Q - I) g|, g random signs"});
  v.second_axis("step", steps, {"Lanczos step"});
  v.table("alpha", probes, &ProbeQuadrature::alpha, {"Diagonal of the tridiagonal matrix", kCurvature});
  v.table("beta", betas,
          {"Off-diagonal of the tridiagonal matrix; the last of a probe is the norm of what was left", kCurvature});
  v.table("ritz", probes, &ProbeQuadrature::ritz, {"Nodes of the quadrature (Ritz values), ascending", kCurvature});
  v.table("weight", probes, &ProbeQuadrature::weight,
          {"Weights of the quadrature over the parameters in use; a probe's sum to 1"});
  if constexpr (kRead<P>)
    for (std::size_t p = 0; p < probes.size(); ++p) {
      ProbeQuadrature& q = probes[p];
      q.beta_last = betas[p].back();
      betas[p].pop_back();
      q.beta = betas[p];
      for (std::size_t i = 0; i < q.ritz.size(); ++i)
        v.require(std::isfinite(q.ritz[i]) && std::isfinite(q.weight[i]),
                  "ritz and weight hold a value that is not finite: the result is broken");
    }
}

void fields(auto& v, Is<std::vector<InputRow>> auto& rows) {
  v.plot("magnitude", {"row"}, "Sharpness of each row's loss in its inputs");
  v.axis("row", rows, &InputRow::row, {"Row of the data, from 0", "", kVersion + 1});
  v.column("loss", rows, &InputRow::loss, {"The row's loss; NaN: not known", "loss", kVersion + 1});
  v.column("gradient_norm", rows, &InputRow::gradient_norm,
           {"Norm of the loss's gradient in the row's inputs; NaN: the row has no loss", "loss/input", kVersion + 1});
  v.column("largest", rows, &InputRow::largest,
           {"Largest eigenvalue of the loss's Hessian in the row's inputs", kInputCurvature, kVersion + 1});
  v.column("largest_error", rows, &InputRow::largest_error, {"Bound of its error", kInputCurvature, kVersion + 1});
  v.column("magnitude", rows, &InputRow::magnitude,
           {"The eigenvalue of largest magnitude, with its sign", kInputCurvature, kVersion + 1});
  v.column("magnitude_error", rows, &InputRow::magnitude_error, {"Bound of its error", kInputCurvature, kVersion + 1});
  v.column("converged", rows, &InputRow::converged,
           {"1 where both bounds are as small as was asked for", "", kVersion + 1});
  v.column("step", rows, &InputRow::step, {"How far the inputs were moved", "input", kVersion + 1});
  v.column("change", rows, &InputRow::change,
           {"Squared norm of the change of the gradient by that step", "loss^2/input^2", kVersion + 1});
}

void fields(auto& v, Is<std::vector<InputQuantiles>> auto& quantiles) {
  v.plot("magnitude", {"share"}, "Quantiles of sharpness in the inputs, over rows");
  v.axis("share", quantiles, &InputQuantiles::share, {"Share of the rows up to the quantile", "", kVersion + 1});
  const auto quantile = [&](const std::string& name, auto member, const std::string& what, const char* units) {
    const auto part = [&](const std::string& ending, auto field, const std::string& label) {
      v.column(name + ending, quantiles, [ member, field ](auto& q) -> auto& { return (q.*member).*field; },
               {label + what, units, kVersion + 1});
    };
    part("", &Quantile::value, "Quantile of the ");
    part("_lower", &Quantile::lower, "Lower end of the interval of that of the ");
    part("_upper", &Quantile::upper, "Upper end of the interval of that of the ");
  };
  quantile("magnitude", &InputQuantiles::magnitude, "largest |eigenvalue|", kInputCurvature);
  quantile("largest", &InputQuantiles::largest, "largest eigenvalue", kInputCurvature);
  quantile("gradient_norm", &InputQuantiles::gradient_norm, "gradient's norm", "loss/input");
  quantile("change", &InputQuantiles::change, "gradient's squared change", "loss^2/input^2");
}

void fields(auto& v, Is<InputSharpness> auto& s) {
  v.attribute("default", "rows");
  v("variables", s.variables, {"Inputs, and nodes that look integer ones up in embeddings", "", kVersion + 1});
  v("dimensions", s.dimensions, {"Numbers in a row's inputs", "", kVersion + 1});
  v("direction", s.direction, {"Where inputs were moved: along the gradient's signs, or itself", "", kVersion + 1});
  v("products", s.most_products, {"Lanczos steps that a row took at most", "", kVersion + 1});
  v("confidence", s.confidence, {"Probability that the quantiles' intervals claim", "", kVersion + 1});
  v.group("rows", "NXdata", s.rows);
  v.group("fragile", "NXdata", s.fragile);
  v.group("quantiles", "NXdata", s.quantiles);
}

/// Of a figure: the error that the data make, and the population's interval.
void population(auto& v, const std::string& name, auto& interval, const std::string& what, const char* units) {
  v(name + "_error", interval.error,
    {"Standard error of the " + what + " over rows; NaN: not known", units, kVersion + 1});
  v(name + "_lower", interval.lower,
    {"Lower end of the interval for the " + what + " of the rows' population; NaN: not known", units, kVersion + 1});
  v(name + "_upper", interval.upper, {"Upper end of that interval", units, kVersion + 1});
}

/// The same of each of several.
void populations(auto& v, auto& rows, auto of, const std::string& what) {
  const auto part = [&](auto field) {
    return [ of, field ](auto& row) -> auto& { return of(row).*field; };
  };
  v.column("error", rows, part(&PopulationInterval::error),
           {"Standard error of the " + what + " over rows; NaN: not known", kCurvature, kVersion + 1});
  v.column("lower", rows, part(&PopulationInterval::lower),
           {"Lower end of the interval for the " + what +
                " of the rows' population, the run's own error included; NaN: "
                "not known",
            kCurvature, kVersion + 1});
  v.column("upper", rows, part(&PopulationInterval::upper), {"Upper end of that interval", kCurvature, kVersion + 1});
}

template <Is<std::vector<EigenDataError>> E>
void fields(auto& v, E& e) {
  v.plot("error", {"index"}, "Standard errors of eigenvalues over rows");
  v.index("index", e, {"Position in the list of eigenvalues", "", kVersion + 1});
  populations(
      v, e, [](auto& one) -> auto& { return one.interval; }, "eigenvalue");
  v.column("bias", e, &EigenDataError::bias,
           {"What an eigenvector that is fitted to these rows adds to the eigenvalue, about; NaN: not known",
            kCurvature, kVersion + 1});
  std::vector<double> groups;
  for (std::size_t g = 0; !e.empty() && g < e.front().of_group.size(); ++g) groups.push_back(static_cast<double>(g));
  v.second_grid("group", groups, {"Group of rows", "", kVersion + 1});
  v.table(
      "of_group", e, &EigenDataError::of_group,
      {"u'Hu of each group's own mean loss, u the eigenvector of all rows; NaN: not known", kCurvature, kVersion + 1});
}

void fields(auto& v, Is<std::vector<PopulationInterval>> auto& layers) {
  v.plot("error", {"index"}, "Standard errors of the parameter tensors' traces over rows");
  v.index("index", layers, {"Position in the list of layers", "", kVersion + 1});
  populations(
      v, layers, [](auto& one) -> auto& { return one; }, "tensor's trace");
}

template <Is<DataError> D>
void fields(auto& v, D& d) {
  auto& groups = d.groups;
  v.plot("trace", {"group"}, "Trace of the {matrix} by groups of rows");
  v.index("group", groups.rows, {"Group of rows, in the file's order", "", kVersion + 1});
  v.column("rows", groups.rows, {"Rows of the group", "", kVersion + 1});
  v.column("share", groups.share, {"Share of the group in what the mean loss divides by", "", kVersion + 1});
  v.column("loss_part", groups.loss, {"Part of the loss that the group has; they sum to it", "loss", kVersion + 1});
  std::vector<double> traces = d.trace_of_group;
  if (traces.empty()) traces.assign(groups.rows.size(), PopulationInterval::kUnknown);
  v.column("trace", traces,
           {"What the group's rows say the trace is, by eigenvectors and two probes; NaN: not known", kCurvature,
            kVersion + 1});
  v("confidence", d.confidence, {"Probability that the intervals claim", "", kVersion + 1});
  v("loss", d.loss_value, {"Mean loss", "loss", kVersion + 1});
  population(v, "loss", d.loss, "loss", "loss");
  population(v, "trace", d.trace, "trace", kCurvature);
  v("trace_from", d.trace_from,
    {"What the trace's error is from: eigenvectors and probes, or probes (then it is rather too large); empty: not "
     "known",
     "", kVersion + 1});
  v.group("eigenvalues", "NXdata", d.eigenvalues);
  v.group("layers", "NXdata", d.layers);
  if constexpr (kRead<D>) {
    v.require(groups.rows.size() > 1, " has fewer than two groups of rows");
    if (std::isfinite(traces.front())) d.trace_of_group = traces;
  }
}

void fields_of_sources(auto& v, const std::string& name, auto& files) {
  v.dimension(name + "_files");
  v.column(name, files, &SourceFile::path, {"Files of the " + name});
  v.column(name + "_sha256", files, &SourceFile::sha256, {"SHA-256 of the files of the " + name});
}

void fields(auto& v, Is<ProcessInfo> auto& p) {
  v.derived("program", std::string("hesspect"), {"Program"});
  v("version", p.version, {"Version of the program"});
  v.derived("date", p.end_time, {"When the result was written, UTC"});
  v("git_revision", p.git_revision, {"Git revision of the program's source"});
  v("build_type", p.build_type, {"Build type"});
  v("torch_version", p.torch_version, {"LibTorch's version"});
  v("hdf5_version", p.hdf5_version, {"HDF5's version"});
  v("mpi_version", p.mpi_version, {"MPI's version"});
  v("run_id", p.run_id, {"The same for all starts of a resumed run", "", 2});
  v("command", p.command, {"Subcommand"});
  v("argv", p.argv, {"Command line"});
  v("config", p.config, {"Resolved configuration, ini"});
  v("hosts", p.hosts, {"Host of each rank"});
  v("ranks", p.ranks, {"MPI ranks"});
  v("threads", p.threads, {"Threads a rank"});
  v("seed", p.seed, {"Seed of the probes"});
  fields_of_sources(v, "model", p.model);
  fields_of_sources(v, "weights", p.weights);
  fields_of_sources(v, "data", p.data);
  v("weights_format", p.weights_format, {"Format of the weights"});
  v("weights_changes", p.weights_changes, {"What was done to make the weights' names fit", "", 3});
  v("selected", p.selected, {"Parameter tensors that --params and --exclude chose; empty: all", "", kVersion + 1});
  v("weights_not_covered", p.weights_not_covered, {"Names that kept what the model had", "", 3});
  v("model_torch_version", p.model_torch_version, {"PyTorch's version that exported the model"});
  v("dtype", p.dtype, {"Type of parameters and vectors"});
  v("precision", p.precision,
    {"In what matrices were multiplied within products: fp32 (as dtype), tf32 or bf16", "", kVersion + 1});
  v("device", p.device, {"Where the model ran"});
  v("distribution", p.distribution, {"Distribution of the probes' entries"});
  v("curvature", p.curvature, {"Which matrix"});
  v("loss", p.loss_kind, {"Which loss"});
  v("reduction", p.reduction, {"Of the loss over all its terms: mean or sum", "", 3});
  v("start_time", p.start_time, {"Start, UTC"});
  v("end_time", p.end_time, {"End, UTC"});
}

template <Is<Landscape> L>
void fields(auto& v, L& l) {
  constexpr const char* kLength = "lengths of the direction";
  if (l.beta.size() > 1)
    v.plot("loss", {"alpha", "beta"}, "Mean loss along two directions through the parameters");
  else
    v.plot("loss_line", {"alpha"}, "Mean loss along a direction through the parameters");
  v.grid("alpha", l.alpha, {"Coordinate along the first direction", kLength, kVersion + 1});
  std::vector<double> line;
  for (const auto& row : l.loss) line.push_back(row.front());
  v.derived_column("loss_line", line,
                   {"Mean loss at the first beta: all there is along one direction", "loss", kVersion + 1});
  v.second_grid("beta", l.beta,
                {"Coordinate along the second direction; 0 alone where there is one", kLength, kVersion + 1});
  v.table("loss", l.loss, {"Mean loss; not finite where the model overflows", "loss", kVersion + 1});
  v.table("quadratic", l.quadratic,
          {"Quadratic model of it, by gradient and curvature at the start", "loss", kVersion + 1});
  v("loss_at_start", l.loss_at_start, {"Mean loss at the parameters", "loss", kVersion + 1});
  v("cross", l.cross, {"d1'Hd2 of two directions", "loss", kVersion + 1});
  v("tolerance", l.tolerance,
    {"How much the quadratic model's change may be off, of itself, within the radius of validity", "", kVersion + 1});
  v("rounding", l.rounding, {"What losses are exact to, at best", "loss", kVersion + 1});
  auto& d = l.directions;
  using D = LandscapeDirection;
  v.dimension("directions");
  v.column("direction", d, &D::name, {"Directions", "", kVersion + 1});
  v.column("norm", d, &D::norm, {"Length of the direction", "parameter", kVersion + 1});
  v.column("slope", d, &D::slope, {"g'd: the loss's change a length of the direction", "loss", kVersion + 1});
  v.column("bend", d, &D::bend, {"d'Hd", "loss", kVersion + 1});
  v.column("low", d, &D::low, {"Lowest coordinate looked at", kLength, kVersion + 1});
  v.column("high", d, &D::high, {"Highest coordinate looked at", kLength, kVersion + 1});
  v.column("valid_below", d, &D::valid_below,
           {"How far out on the negative side the quadratic model holds", kLength, kVersion + 1});
  v.column("valid_below_fails", d, &D::valid_below_fails,
           {"The next step out, at which it fails; infinite: none as far as low", kLength, kVersion + 1});
  v.column("valid_above", d, &D::valid_above,
           {"How far out on the positive side the quadratic model holds", kLength, kVersion + 1});
  v.column("valid_above_fails", d, &D::valid_above_fails,
           {"The next step out, at which it fails; infinite: none as far as high", kLength, kVersion + 1});
}

void fields(auto& v, Is<AdamSharpness> auto& a) {
  constexpr int kNew = kVersion + 1;
  constexpr const char* kScaled = "1/parameter";
  v("lambda_1", a.lambda_1,
    {"Largest eigenvalue of D^-1/2 H D^-1/2, D = sqrt(second moment, corrected) + eps", kScaled, kNew});
  v("lambda_1_error", a.lambda_1_error, {"Bound of its error", kScaled, kNew});
  v("converged", a.converged, {"1 where the residual met the tolerance", "", kNew});
  v("products", a.products, {"Products that it took", "", kNew});
  v("largest_rate", a.largest_rate,
    {"Largest stable learning rate of Adam with these moments: 2 (1 + beta1) / ((1 - beta1) lambda_1)", "parameter",
     kNew});
  v.dimension("checks");
  v.column("growth_below", a.steps, &StepCheck::below,
           {"Growth a step of Adam with D held fixed along the eigenvector, measured, 5 % below that rate", "", kNew});
  v.column("growth_above", a.steps, &StepCheck::above, {"The same 5 % above it", "", kNew});
  v.column("expected_below", a.steps, &StepCheck::expected_below, {"The same of a quadratic loss, below", "", kNew});
  v.column("expected_above", a.steps, &StepCheck::expected_above, {"The same of a quadratic loss, above", "", kNew});
  v("beta1", a.beta1, {"Adam's beta1", "", kNew});
  v("beta2", a.beta2, {"Adam's beta2, by which moments are corrected for their bias", "", kNew});
  v("eps_least", a.eps_least, {"Adam's eps, the least of the parameter groups", "loss/parameter", kNew});
  v("eps_most", a.eps_most, {"The largest", "loss/parameter", kNew});
  v("step_fewest", a.step_fewest,
    {"Updates so far, the fewest of all parameters; 0: not known, and moments taken as corrected", "", kNew});
  v("step_most", a.step_most, {"The most", "", kNew});
  v("amsgrad", a.largest, {"1 where the moments are the largest so far (amsgrad)", "", kNew});
  v("file", a.file, {"File of the second moments", "", kNew});
  v("file_sha256", a.sha256, {"SHA-256 of it", "", kNew});
  v("format", a.format, {"Its format", "", kNew});
}

/// A number with its interval, as three fields.
void interval(auto& v, const std::string& name, auto& i, const std::string& what, const std::string& units) {
  v(name, i.value, {what + "; NaN: not known", units, kVersion + 1});
  v(name + "_lower", i.lower, {what + ": lower end of its interval", units, kVersion + 1});
  v(name + "_upper", i.upper, {what + ": upper end of its interval", units, kVersion + 1});
}

void fields(auto& v, Is<Information> auto& i) {
  constexpr int kNew = kVersion + 1;
  v("obstacle", i.obstacle, {"Why nothing was measured; empty: it was", "", kNew});
  v("fisher_rao", i.fisher_rao,
    {"Squared Fisher-Rao norm of the parameters, of the model's own distribution", "loss", kNew});
  v("empirical_fisher_rao", i.empirical_fisher_rao, {"The same with the data's targets", "loss", kNew});
  interval(v, "trace", i.trace, "Trace of the run's matrix", kCurvature);
  interval(v, "fisher_trace", i.fisher_trace, "Trace of the Fisher matrix", kCurvature);
  interval(v, "empirical_trace", i.empirical_trace, "Trace of the empirical Fisher matrix, of terms", kCurvature);
  interval(v, "empirical_over_fisher", i.empirical_over_fisher, "Empirical Fisher's trace over Fisher's", "");
  interval(v, "empirical_over_matrix", i.empirical_over_hessian, "Empirical Fisher's trace over the run's matrix's",
           "");
  v("confidence", i.confidence, {"Probability that the intervals claim", "", kNew});
  v("samples", i.samples, {"Random vectors that the traces are from", "", kNew});
  v("products", i.products, {"Products that all of this took", "", kNew});
}

void fields(auto& v, Is<RelativeFlatness> auto& f) {
  constexpr int kNew = kVersion + 1;
  v("obstacle", f.obstacle, {"Why it was not measured; empty: it was", "", kNew});
  v("layer", f.layer, {"Parameter tensor", "", kNew});
  v("rows", f.rows, {"Rows of its weights", "", kNew});
  v("columns", f.columns, {"Columns of its weights", "", kNew});
  interval(v, "value", f.value, "Relative flatness", "loss");
  v("confidence", f.confidence, {"Probability that the interval claims", "", kNew});
  v("samples", f.samples, {"Random vectors that it is from", "", kNew});
}

void fields(auto& v, Is<DataQuality> auto& q) {
  constexpr int kNew = kVersion + 1;
  v("file", q.file, {"Data file", "", kNew});
  v("file_sha256", q.sha256, {"SHA-256 of it", "", kNew});
  v("rows", q.rows, {"Rows", "", kNew});
  v("terms", q.terms, {"Terms of the loss that are classified", "", kNew});
  interval(v, "loss", q.loss, "Mean loss", "loss");
  interval(v, "accuracy", q.accuracy, "Share of terms whose most likely class is the target", "");
  interval(v, "nll", q.nll, "Mean negative log-likelihood of the targets, unweighted", "nat");
  interval(v, "ece", q.ece, "Expected calibration error, 15 bins of equal width", "");
  interval(v, "brier", q.brier, "Brier score", "");
  v("calibrated_ece", q.calibrated_ece,
    {"What a calibrated model of these confidences would show as calibration error, in the mean", "", kNew});
}

void fields(auto& v, Is<DataComparison> auto& c) {
  constexpr int kNew = kVersion + 1;
  interval(v, "gap", c.gap, "Mean loss on the other data less that on the own", "loss");
  v("obstacle", c.obstacle, {"Why nothing was classified; empty: it was", "", kNew});
  v("confidence", c.confidence, {"Probability that the intervals claim", "", kNew});
  v("resamples", c.resamples, {"How many times the bootstrap drew rows anew, of the own data", "", kNew});
  v.group("own", "NXcollection", c.own);
  v.group("other", "NXcollection", c.other);
}

void fields(auto& v, Is<StepsByBlock> auto& b) {
  constexpr int kNew = kVersion + 1;
  using B = BlockSteps;
  v.index("index", b.each, {"Position in the list", "", kNew});
  v.column("name", b.each, &B::name, {"Diagonal block: what it allows, all other parameters held fixed", "", kNew});
  v.column("parameters", b.each, &B::parameters, {"Parameters of the block", "", kNew});
  v.column("lambda_1", b.each, &B::lambda_1, {"Largest eigenvalue of the block", kCurvature, kNew});
  v.column("lambda_1_error", b.each, &B::lambda_1_error, {"Bound of its error", kCurvature, kNew});
  v.column("step", b.each, &B::step,
           {"Largest stable step of gradient descent in the block; NaN: the eigenvalue is not above zero",
            "parameter^2/loss", kNew});
  v.column("growth_below", b.each, &B::growth_below,
           {"Growth a step along the block's eigenvector, measured, 5 % below that step; NaN: not checked", "", kNew});
  v.column("growth_above", b.each, &B::growth_above, {"The same 5 % above it", "", kNew});
  v.column("adam_lambda_1", b.each, &B::adam_lambda_1,
           {"Largest eigenvalue of the block of D^-1/2 H D^-1/2, as Adam sees it; NaN: no second moments",
            "1/parameter", kNew});
  v.column("adam_lambda_1_error", b.each, &B::adam_lambda_1_error, {"Bound of its error", "1/parameter", kNew});
  v.column("adam_rate", b.each, &B::adam_rate,
           {"Largest stable learning rate of Adam in the block; NaN: not known, or none", "parameter", kNew});
  v.column("adam_growth_below", b.each, &B::adam_growth_below,
           {"Growth a step of Adam with D held fixed, measured, 5 % below that rate; NaN: not checked", "", kNew});
  v.column("adam_growth_above", b.each, &B::adam_growth_above, {"The same 5 % above it", "", kNew});
  v.column("converged", b.each, &B::converged, {"1 where the eigenvalues met the tolerance", "", kNew});
  v.column("products", b.each, &B::products, {"Products with the block", "", kNew});
}

template <Is<Sharpness> S>
void fields(auto& v, S& s) {
  constexpr int kNew = kVersion + 1;
  v("loss", s.loss, {"Mean loss at the parameters", "loss", kNew});
  v("gradient_norm", s.gradient_norm, {"Norm of the gradient of the mean loss", "loss/parameter", kNew});
  v("parameter_norm", s.parameter_norm, {"Norm of the parameters", "parameter", kNew});
  v("lambda_1", s.lambda_1, {"Largest eigenvalue", kCurvature, kNew});
  v("lambda_1_error", s.lambda_1_error, {"Bound of its error", kCurvature, kNew});
  v.dimension("ascent");
  v.column("rho", s.ascents, &Ascent::rho,
           {"Sizes of ascent steps: in parameters, or relative where adaptive", "", kNew});
  v.column("adaptive", s.ascents, &Ascent::adaptive, {"1 where the step is relative to each parameter", "", kNew});
  v.column("rise_gradient", s.ascents, &Ascent::gradient,
           {"Rise of the loss by a step of that size along the gradient", "loss", kNew});
  v.column("rise_eigenvector", s.ascents, &Ascent::eigenvector,
           {"Largest rise by such a step along the eigenvectors, both ways; NaN: not tried", "loss", kNew});
  v.column("rise_first_order", s.ascents, &Ascent::first_order, {"What the gradient alone says of it", "loss", kNew});
  v.dimension("optimizers");
  v.column("optimizer", s.steps, &StepCheck::optimizer, {"Optimisers whose largest stable step was checked", "", kNew});
  v.column("largest_step", s.steps, &StepCheck::largest_step,
           {"Largest stable learning rate by the largest eigenvalue", "parameter^2/loss", kNew});
  v.column("growth_below", s.steps, &StepCheck::below,
           {"Growth a step along the leading eigenvector, measured, 5 % below the largest stable step", "", kNew});
  v.column("growth_above", s.steps, &StepCheck::above, {"The same 5 % above it", "", kNew});
  v.column("expected_below", s.steps, &StepCheck::expected_below, {"The same of a quadratic loss, below", "", kNew});
  v.column("expected_above", s.steps, &StepCheck::expected_above, {"The same of a quadratic loss, above", "", kNew});
  v.group("adam", "NXcollection", s.adam);
  v.group("blocks", "NXcollection", s.blocks);
  v.group("information", "NXcollection", s.information);
  v.group("relative_flatness", "NXcollection", s.flatness);
  v("critical_step", s.critical.step,
    {"Smallest step along the gradient that raises the loss; NaN: not found", "parameter^2/loss", kNew});
  v("critical_sharpness", s.critical.sharpness, {"2 over that step", kCurvature, kNew});
  v("directional_sharpness", s.critical.directional, {"g'Hg / g'g", kCurvature, kNew});
  v("basin_tolerance", s.basin.tolerance, {"Rise of the loss that ends the basin", "loss", kNew});
  v.dimension("random_direction");
  v.column(
      "basin_radius", s.basin.radius,
      {"How far the loss stays within it along random directions, over the norm of the parameters; infinite: beyond 10",
       "", kNew});
}

void fields(auto& v, Is<Diagnostics> auto& d) {
  v("symmetry_error", d.symmetry_error,
    {"|u'Hv - v'Hu| / (|u| |Hv| + |v| |Hu|) for two random vectors; NaN: not measured"});
  v("precision_error", d.precision.error,
    {"Error of a product by the precision of its matrix products: |H~v - Hv| / |Hv|, v of random signs; 0 in full "
     "precision",
     "", kVersion + 1});
  v("precision_rayleigh_error", d.precision.rayleigh_error,
    {"The same of the Rayleigh quotient: |v'H~v - v'Hv| / |v'Hv|", "", kVersion + 1});
  v("precision_leading_error", d.precision.leading_error,
    {"Error of a product with w = Hv, which leans to the eigenvalues of largest magnitude: |H~w - Hw| / |Hw|", "",
     kVersion + 1});
  v("precision_leading_rayleigh_error", d.precision.leading_rayleigh_error,
    {"The same of the Rayleigh quotient: |w'H~w - w'Hw| / |w'Hw|", "", kVersion + 1});
  v("precision_moved", d.precision.moved,
    {"What the precision moves eigenvalues by, root mean square: |H~v - Hv| / |v|", kCurvature, kVersion + 1});
  v("precision_time", d.precision.time,
    {"Time of a product, nothing kept, over that in full precision; 1 in full precision", "", kVersion + 1});
  v("orthogonality_loss", d.orthogonality_loss,
    {"Loss of orthogonality: largest entry of |(Q'Q - I) g|, g random signs; NaN: not measured"});
  v("hvp_count", d.products, {"Hessian-vector products"});
  v("hvp_seconds", d.product_s, {"Wall time in Hessian-vector products", "s"});
  v("communication_seconds", d.communication_s, {"Part of it in collectives, rank 0", "s"});
  v("cost_in_gradients", d.cost_in_gradients, {"Time of a product over the time of a gradient"});
  v("elapsed_seconds", d.elapsed_s, {"Wall time of the run", "s"});
  v("loss", d.loss, {"Mean loss", "loss"});
  v("gradient_norm", d.gradient_norm, {"Norm of the gradient of the mean loss", "loss/parameter"});
  v("n_parameters", d.parameters, {"Parameters, tied ones once"});
  v("n_model_parameters", d.model_parameters,
    {"Parameters of the model, those included that --params and --exclude hold fixed", "", kVersion + 1});
  v("n_parameters_in_use", d.parameters_in_use,
    {"Parameters that vectors held; the others are in rows of tables that the data don't use, and exact zero "
     "eigenvalues",
     "", kVersion + 1});
  v("rows_in_use", d.rows_in_use, {"Tables of which vectors held only the rows that the data use", "", kVersion + 1});
  if constexpr (kRead<std::remove_reference_t<decltype(d)>>)
    if (d.parameters_in_use == 0) d.parameters_in_use = d.parameters;
  v("n_rows", d.rows, {"Rows of data"});
  v("n_loss_terms", d.loss_terms, {"Terms the mean loss divides by"});
  v("micro_batch", d.micro_batch, {"Rows that went through the model at once"});
  v("unit_rows", d.unit_rows, {"Rows that belong together and were never parted", "", 3});
  v("row_check", d.row_check, {"How it is known that the loss is a sum over rows", "", 3});
  v("peak_memory_bytes", d.peak_memory_bytes, {"Peak resident memory, largest of all ranks", "byte"});
  v("peak_device_bytes", d.peak_device_bytes, {"Peak GPU memory, largest of all ranks; 0 on the CPU", "byte", 2});
  v("groups", d.groups, {"Groups of ranks, each with probes of its own", "", 2});
  v("data_ranks", d.data_ranks, {"Ranks a group", "", 2});
  v("lock_step", d.lock_step, {"Probes that a group ran at a time", "", 2});
  v("basis_dtype", d.basis_dtype, {"Type of the kept Krylov vectors", "", 2});
  v("basis_memory", d.basis_memory, {"Where the Krylov vectors were kept", "", 2});
  v("basis_bytes", d.basis_bytes, {"Krylov basis of a rank", "byte", 2});
  v("micro_batches", d.micro_batches, {"Micro-batches of rank 0", "", 2});
  v("kept_graphs", d.kept_graphs, {"Micro-batches of rank 0 that were kept between products", "", 2});
  v("cuda_graphs", d.cuda_graphs,
    {"Micro-batches of rank 0 whose products were replayed as CUDA graphs", "", kVersion + 1});
  v("messages_per_step", d.messages_per_step, {"Collectives of a Lanczos step", "", 2});
  v("message_bytes_per_step", d.message_bytes_per_step, {"Bytes a rank sends in a Lanczos step", "byte", 2});
  v("starts", d.starts, {"Starts of the run: 1 and as often as it was resumed", "", 2});
  v("forecast_memory_bytes", d.forecast_memory_bytes, {"Memory forecast, largest of all ranks", "byte", 2});
  v("forecast_seconds", d.forecast_s, {"Wall time forecast; NaN: none", "s", 2});
  v("forecast_hvp_seconds", d.forecast_product_s, {"Wall time of one product forecast; NaN: none", "s", 2});
  v("gradient_seconds", d.gradient_s, {"Wall time of one gradient, warm; NaN: not measured", "s", 2});
  v("product_share", d.product_share, {"Part of the elapsed time in products; NaN: not measured", "", 2});
  for (const Phase phase : all_phases())  // of rank 0, and of the last start: their sum is its wall time
    v("seconds_" + name_of(phase), d.phases[phase], {description_of(phase) + ", rank 0", "s", kVersion + 1});
  v("seconds_matrix_products", d.phases.matrix_products,
    {"Part of the sweeps' seconds in linear layers, products of matrices and convolutions, attention not included, "
     "rank 0",
     "s", kVersion + 1});
  v("widened_weights", d.widened_weights, {"Weights stored as bfloat16 or float16 and widened"});
}

/// What the products were taken for, and in brackets what else they served.
void fields(auto& v, Is<ProductCount> auto& c) {
  v("symmetry", c.symmetry, {"Products for the symmetry error (trace)", "", 2});
  v("first_probe", c.first_probe,
    {"Products of the first probe's Lanczos run (eigenvalues, density, deflation of the trace)", "", 2});
  v("density", c.density, {"Products of the other probes' Lanczos runs (their first ones: trace, layers)", "", 2});
  v("trace", c.trace, {"Products for the trace and the layers alone", "", 2});
  v("eigenvalues", c.eigenvalues, {"Products of block Lanczos or power iterations", "", 2});
  v("residuals", c.residuals, {"Products for true residuals", "", 2});
  v("surplus", c.surplus, {"Products under way in other groups when the accuracy was met", "", 2});
  v.derived("total", c.symmetry + c.first_probe + c.density + c.trace + c.eigenvalues + c.residuals + c.surplus,
            {"All of these products", "", 2});
}

template <Is<BlockResult> B>
void fields(auto& v, B& b) {
  v("parameters", b.parameters, {"Parameters of the block", "", kVersion + 1});
  v("unused", b.unused,
    {"Of them in rows of tables that the data don't use: eigenvalues of zero, which the quadrature leaves out", "",
     kVersion + 1});
  v("tensors", b.tensors, {"Parameter tensors that the block has entries of", "", kVersion + 1});
  v("norm_sq", b.norm_sq.value, {"Squared Frobenius norm of the block; NaN: not known", kCurvatureSq, kVersion + 1});
  v("norm_sq_error", b.norm_sq.standard_error,
    {"Standard error of that norm over samples; NaN: not known", kCurvatureSq, kVersion + 1});
  v("products", b.products, {"Products with the block", "", kVersion + 1});
  v("seconds", b.product_s, {"Wall time in them", "s", kVersion + 1});
  v.group("density", "NXdata", b.density);
  v.group("cumulative", "NXdata", b.cumulative);
  v.group("eigenvalues", "NXdata", b.eigenvalues);
  v.group("trace", "NXcollection", b.trace);
  v.group("quadrature", "NXdata", b.quadrature);
}

/// What the blocks have, side by side, and what they are together.
template <Is<BlocksResult> B>
void fields(auto& v, B& b) {
  v.plot("largest", {"index"}, "Largest eigenvalue of each diagonal block of the {matrix}");
  v.index("index", b.each, {"Position in the list", "", kVersion + 1});
  v.column("name", b.each, &BlockResult::name, {"Block: the name of its group under blocks/", "", kVersion + 1});
  v.column("parameters", b.each, &BlockResult::parameters, {"Parameters of the block", "", kVersion + 1});
  const auto derived = [&](const std::string& name, auto get, const std::string& what, const std::string& error) {
    std::vector<double> values, errors;
    for (const BlockResult& block : b.each) {
      const Estimate one = get(block);
      values.push_back(one.value);
      errors.push_back(one.standard_error);
    }
    v.derived_column(name, values, {what + "; NaN: not asked for", kCurvature, kVersion + 1});
    v.derived_column(name + "_error", errors, {error, kCurvature, kVersion + 1});
  };
  derived(
      "largest", [](const BlockResult& r) { return r.largest(); }, "Largest eigenvalue", "Bound of its error");
  derived(
      "smallest", [](const BlockResult& r) { return r.smallest(); }, "Smallest eigenvalue", "Bound of its error");
  derived(
      "trace", [](const BlockResult& r) { return r.trace_estimate(); }, "Trace", "Standard error of the trace");
  derived(
      "mean", [](const BlockResult& r) { return r.mean(); }, "Mean of the diagonal: trace over parameters",
      "Standard error of that mean");
  v("rest_parameters", b.rest, {"Parameters that are in no block", "", kVersion + 1});
  v("norm_sq", b.norm_sq.value,
    {"Squared Frobenius norm of the whole matrix; NaN: not known", kCurvatureSq, kVersion + 1});
  v("norm_sq_error", b.norm_sq.standard_error,
    {"Standard error of that norm over samples; NaN: not known", kCurvatureSq, kVersion + 1});
  v("off_block_share", b.off_block_share.value,
    {"Share of the squared Frobenius norm that lies outside the blocks; NaN: not known", "", kVersion + 1});
  v("off_block_share_error", b.off_block_share.standard_error,
    {"Standard error of that share over samples; NaN: not known", "", kVersion + 1});
  v("off_block_obstacle", b.off_block_obstacle, {"Why that share is not known; empty: it is", "", kVersion + 1});
  const std::vector<std::int64_t> lengths(b.each.size(), std::ssize(b.each));
  v.second_axis("other", lengths, {"Position of the other block", "", kVersion + 1});
  v.table("js_distance", b.js_distance,
          {"Jensen-Shannon distance between two blocks' densities, from 0 (alike) to 1 (nothing in common); NaN: no "
           "densities",
           "", kVersion + 1});
  v.table("js_distance_error", b.js_error,
          {"Standard error of that distance over probes, by a given kernel; NaN: not known", "", kVersion + 1});
  v.table("js_distance_lower", b.js_lower,
          {"Lower end of its interval at the density's confidence; NaN: not known", "", kVersion + 1});
  v.table("js_distance_upper", b.js_upper, {"Upper end of that interval", "", kVersion + 1});
  v("js_distance_mean", b.js_mean, {"Mean distance over pairs of blocks; NaN: no densities", "", kVersion + 1});
  v("js_distance_mean_error", b.js_mean_error,
    {"Standard error of that mean over probes; NaN: not known", "", kVersion + 1});
  v("js_distance_mean_lower", b.js_mean_lower, {"Lower end of its interval; NaN: not known", "", kVersion + 1});
  v("js_distance_mean_upper", b.js_mean_upper, {"Upper end of that interval", "", kVersion + 1});
  v("js_sigma", b.js_sigma,
    {"Standard deviation of the Gaussian kernel that smooths all blocks' densities alike for it", kCurvature,
     kVersion + 1});
}

/// Tables by feature and size of the steps.
template <Is<FeaturesResult> F>
void feature_changes(auto& v, F& f) {
  constexpr int kNew = kVersion + 1;
  if (!v.there("rho", f.rho)) return;
  v.second_grid("rho", f.rho,
                {"Length of the steps that the loss's change is measured at, over the norm of the feature's parameters "
                 "in use",
                 "", kNew});
  const auto table = [&](const std::string& name, double FeatureChange::*field, const std::string& what) {
    std::vector<std::vector<double>> values;
    if constexpr (!kRead<F>)
      for (const FeatureResult& feature : f.each) {
        auto& row = values.emplace_back();
        for (const FeatureChange& change : feature.changes) row.push_back(change.*field);
      }
    v.table(name, values, {what, "loss", kNew});
    if constexpr (kRead<F>)
      for (std::size_t i = 0; i < f.each.size(); ++i) {
        f.each[i].changes.resize(f.rho.size());
        for (std::size_t k = 0; k < f.rho.size(); ++k) f.each[i].changes[k].*field = values.at(i).at(k);
      }
  };
  table("change", &FeatureChange::value,
        "Change of the loss by a step of that length within the feature, mean over all directions");
  table("change_lower", &FeatureChange::lower, "Lower end of its confidence interval; NaN: not known");
  table("change_upper", &FeatureChange::upper, "Upper end of its confidence interval; NaN: not known");
  table("change_skewness", &FeatureChange::skewness,
        "Skewness of what was averaged over the draws, as a share of the largest that so many draws can have: the "
        "interval is widened on that side; NaN: not known");
  table("change_predicted", &FeatureChange::predicted, "The same by the quadratic model: rho^2 norm^2 trace / 2n");
  table("change_predicted_half_width", &FeatureChange::predicted_half_width, "Half width of its interval");
  table("change_largest", &FeatureChange::largest, "The largest change of any direction that was drawn, either way");
  table("change_along", &FeatureChange::along,
        "The change along the feature's first eigenvector, the larger of both ways; NaN: not measured");
}

template <Is<FeaturesResult> F>
void fields(auto& v, F& f) {
  constexpr int kNew = kVersion + 1;
  using R = FeatureResult;
  v.plot("largest", {"index"}, "Largest eigenvalue of each feature's block of the {matrix}");
  v.index("index", f.each, {"Position in the list", "", kNew});
  v.column("name", f.each, &R::name, {"Features, of largest eigenvalue first", "", kNew});
  v.column("kind", f.each, &R::kind,
           {"What the feature is: table, bucket, row, rows, columns, tensors or group", "", kNew});
  std::vector<std::string> tensors;
  for (const R& feature : f.each) {
    std::string text;
    for (const std::string& tensor : feature.tensors) text += (text.empty() ? "" : ", ") + tensor;
    tensors.push_back(text);
  }
  v.column("tensors", tensors, {"Parameter tensors that it has entries of", "", kNew});
  if constexpr (kRead<F>)
    for (std::size_t i = 0; i < f.each.size(); ++i) f.each[i].tensors = {tensors.at(i)};
  v.column("parameters", f.each, &R::parameters,
           {"Parameters of the feature, those included that no row of the data uses", "", kNew});
  v.column("in_use", f.each, &R::in_use, {"Parameters of it that the data use: n of its block", "", kNew});
  v.column("look_ups", f.each, &R::look_ups,
           {"How often the data look up a row of it; NaN: it is not of looked-up tables alone", "", kNew});
  v.column("rows", f.each, &R::rows,
           {"Rows of the data that touch it: look up a row of it, or have an input that its columns multiply and that "
            "is not zero; NaN: can't be told",
            "", kNew});
  std::vector<double> shares;
  for (const R& feature : f.each) shares.push_back(f.frequency(feature));
  v.derived_column("frequency", shares, {"Share of the rows of the data that touch it; NaN: can't be told", "", kNew});
  v.column("nested", f.each, &R::nested,
           {"1 where it shares parameters with a smaller feature, and is in no correlation", "", kNew});
  v.column("largest", f.each, [](auto& r) -> auto& { return r.largest.value; },
           {"Largest eigenvalue of the feature's block", kCurvature, kNew});
  v.column("largest_error", f.each, [](auto& r) -> auto& { return r.largest.standard_error; },
           {"Bound of its error", kCurvature, kNew});
  v.column("trace", f.each, &R::trace, {"Trace of the feature's block", kCurvature, kNew});
  v.column("trace_half_width", f.each, &R::trace_half_width,
           {"Half width of the trace's confidence interval; NaN: not known", kCurvature, kNew});
  std::vector<double> means, mean_half_widths;
  for (const R& feature : f.each) {
    means.push_back(feature.mean());
    mean_half_widths.push_back(feature.mean_half_width());
  }
  v.derived_column("mean", means, {"Trace per parameter in use", kCurvature, kNew});
  v.derived_column("mean_half_width", mean_half_widths, {"Half width of its confidence interval", kCurvature, kNew});
  v.column("norm", f.each, &R::norm, {"Norm of the feature's parameters in use", "parameter", kNew});
  v.column("products", f.each, &R::products, {"Products with the feature's block", "", kNew});
  v.column("seconds", f.each, &R::product_s, {"Wall time in them", "s", kNew});
  v.column("converged", f.each, &R::converged, {"1 where eigenvalue and trace are as accurate as was asked", "", kNew});
  feature_changes(v, f);
  v.dimension("correlations");
  auto& c = f.correlations;
  using C = FeatureCorrelation;
  v.column("correlation_of", c, &C::what,
           {"What was correlated by ranks over the features that are not nested; given what", "", kNew});
  v.column("correlation", c, [](auto& one) -> auto& { return one.found.value; },
           {"Spearman's rank correlation, plain or partial; NaN: not known", "", kNew});
  v.column("correlation_lower", c, [](auto& one) -> auto& { return one.found.lower; },
           {"Lower end of its confidence interval (Fisher's z), features taken as independent draws", "", kNew});
  v.column("correlation_upper", c, [](auto& one) -> auto& { return one.found.upper; }, {"Upper end of it", "", kNew});
  v.column("correlation_features", c, [](auto& one) -> auto& { return one.found.count; },
           {"Features that it is over", "", kNew});
  v.column("correlation_missing", c, &C::missing, {"Why it is not known; empty: it is", "", kNew});
  v("draws", f.draws, {"Random directions, both ways each, that changes are from", "", kNew});
  v("confidence", f.confidence, {"Probability that intervals claim", "", kNew});
  v("loss", f.loss, {"Mean loss at the parameters", "loss", kNew});
  v("rounding", f.rounding, {"What losses are exact to, at best", "loss", kNew});
  v("data_rows", f.data_rows, {"Rows of the data", "", kNew});
}

void fields(auto& v, Is<RunResult> auto& r) {
  v.group("density", "NXdata", r.density);
  v.group("cumulative", "NXdata", r.cumulative);
  v.group("eigenvalues", "NXdata", r.eigenvalues);
  v.group("trace", "NXcollection", r.trace, [&](auto& g, auto& t) { fields_of_samples(g, r.samples, t.captured); });
  v.group("layers", "NXdata", r.layers);
  v.group("data_error", "NXdata", r.data_error);
  v.group("initial_weights", "NXdata", r.initial);
  v.group("quadrature", "NXdata", r.quadrature);
  v.group("block_summary", "NXdata", r.blocks);
  v.groups("blocks", "NXcollection", r.blocks, &BlocksResult::each, &BlockResult::name);
  v.group("features", "NXdata", r.features);
  v.group("inputs", "NXcollection", r.inputs);
  v.group("landscape", "NXdata", r.landscape);
  v.group("sharpness", "NXcollection", r.sharpness);
  v.group("quality", "NXcollection", r.quality);
  v.group("process", "NXprocess", r.process);
  v.group("diagnostics", "NXcollection", r.diagnostics, [&](auto& g, auto&) {
    g("warnings", r.warnings, {"Warnings of the run"});
    g.group("products", "NXcollection", r.counts);
  });
}

}  // namespace hesspect::schema
