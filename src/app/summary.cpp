#include "summary.h"

#include <cmath>
#include <cstdio>

#include "hesspect/core/text.h"

namespace hesspect {
namespace {

template <class... Values>
std::string formatted(const char* format, Values... values) {
  char text[256];
  std::snprintf(text, sizeof text, format, values...);
  return text;
}

/// The most extreme first, as number 1.
void add_eigenvalues(std::vector<std::string>& lines, const std::string& which,
                     const std::vector<EigenEstimate>& list) {
  for (std::size_t i = 0; i < list.size(); ++i)
    lines.push_back(formatted(
        "  %-9s %3zu  % .8e +- %.1e%s%s", which.c_str(), i + 1, list[i].value, list[i].error,
        std::isfinite(list[i].true_residual) ? formatted(", residual %.1e", list[i].true_residual).c_str() : "",
        list[i].converged ? "" : "  not converged"));
}

}  // namespace

std::string describe(const Problem& p, const KeptLayout& layout, const Group& group) {
  const HessianStats& stats = group.op->stats();
  const Plan& plan = layout.plan;
  const auto counted = [](std::int64_t count, const std::string& what) {
    return format_count(count) + " " + what + (count == 1 ? "" : "s");
  };
  std::string ranks =
      counted(layout.world, "rank") + " of " + counted(layout.threads, "thread") + " on " + layout.device;
  if (plan.groups > 1) ranks = counted(plan.groups, "group") + " of " + std::to_string(plan.data_ranks) + ", " + ranks;
  if (plan.lock_step > 1) ranks += ", " + std::to_string(plan.lock_step) + " probes at a time";
  const std::int64_t unit_rows = p.options.units.rows;
  return format_count(group.op->shard().n) + " parameters, " + format_count(p.rows) + " rows " +
         (unit_rows > 1 ? "in units of " + format_count(unit_rows) + ", " : "") + "in micro-batches of " +
         std::to_string(stats.micro_batch) + (p.options.loss.reduction == Reduction::kSum ? ", summed" : ",") +
         " loss " + number(group.op->loss()) + "; " + ranks;
}

std::string describe(const TraceEstimate& trace) {
  std::string text = number(trace.value);
  if (std::isfinite(trace.half_width))
    text += " +- " + number(trace.half_width) + " (" + number(100 * trace.confidence) + " %)";
  text += ", " + trace.method + ", " + format_count(trace.samples) + (trace.samples == 1 ? " sample" : " samples");
  return trace.converged ? text : text + "  not converged";
}

std::vector<std::string> summary(const RunResult& r) {
  const Diagnostics& d = r.diagnostics;
  std::vector<std::string> lines;
  lines.push_back("  loss          " + number(d.loss) + ", gradient norm " + number(d.gradient_norm) + ", " +
                  format_count(d.parameters) + " parameters");
  if (r.eigenvalues) {
    add_eigenvalues(lines, "top", r.eigenvalues->top);
    const auto& bottom = r.eigenvalues->bottom;  // the smallest comes last
    add_eigenvalues(lines, "bottom", {bottom.rbegin(), bottom.rend()});
    add_eigenvalues(lines, "magnitude", r.eigenvalues->magnitude);
  }
  if (r.trace) lines.push_back("  trace         " + describe(*r.trace));
  if (r.cumulative) {
    const CumulativeDensity& c = *r.cumulative;
    lines.push_back("  density       " + (c.band == "exact"
                                              ? "all " + format_count(d.parameters) + " eigenvalues found"
                                              : number(100 * c.w1 / (c.range_hi - c.range_lo)) +
                                                    " % of the spectrum's width off at most (Wasserstein-1, " +
                                                    number(100 * c.confidence) + " %)"));
    const auto share = [](const Estimate& e) { return number(e.value) + " +- " + formatted("%.2g", e.standard_error); };
    lines.push_back("  shares        " + share(c.weight_at_zero) + " of the eigenvalues at zero, " +
                    share(c.negative_mass) + " negative");
  }
  std::string cost = format_count(d.products) + " Hessian-vector products in " + format_duration(d.product_s);
  if (std::isfinite(d.cost_in_gradients)) cost += formatted(" (%.2f gradients each)", d.cost_in_gradients);
  lines.push_back("  cost          " + cost + ", " + format_duration(d.elapsed_s) + " in all, at most " +
                  format_bytes(d.peak_memory_bytes) + " a rank");
  return lines;
}

}  // namespace hesspect
