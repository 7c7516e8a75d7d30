#include "landscape_text.h"

#include <algorithm>
#include <cmath>

#include "hesspect/core/text.h"

namespace hesspect {
namespace {

/// "between 0.1 and 0.14", "beyond 0.5", "below 0.01".
std::string radius_text(double valid, double fails) {
  if (!std::isfinite(fails)) return valid > 0 ? "beyond " + format_number(valid) : "not looked at";
  if (valid == 0) return "below " + format_number(fails);
  return "between " + format_number(valid) + " and " + format_number(fails);
}

}  // namespace

std::vector<std::pair<std::string, std::string>> landscape_lines(const Landscape& l) {
  std::vector<std::pair<std::string, std::string>> lines;
  for (const LandscapeDirection& d : l.directions) {
    lines.emplace_back("direction", d.name + ", length " + format_number(d.norm) + ", from " + format_number(d.low) +
                                        " to " + format_number(d.high) + " of it; slope " + format_number(d.slope) +
                                        ", curvature " + format_number(d.bend));
    lines.emplace_back("quadratic to", radius_text(d.valid_below, d.valid_below_fails) + " on the negative side, " +
                                           radius_text(d.valid_above, d.valid_above_fails) + " on the positive, to " +
                                           format_number(100 * l.tolerance) + " % of its change");
  }
  double least = l.loss_at_start, most = l.loss_at_start;
  std::int64_t lost = 0;
  for (const auto& row : l.loss)
    for (const double loss : row) {
      if (!std::isfinite(loss)) {
        ++lost;
        continue;
      }
      least = std::min(least, loss);
      most = std::max(most, loss);
    }
  lines.emplace_back("losses", "from " + format_number(least) + " to " + format_number(most) +
                                   (lost > 0 ? ", " + format_count(lost) + " not finite" : ""));
  return lines;
}

std::vector<std::pair<std::string, std::string>> sharpness_lines(const Sharpness& s) {
  std::vector<std::pair<std::string, std::string>> lines;
  for (const Ascent& a : s.ascents) {
    std::string text = "at rho " + format_number(a.rho) + (a.adaptive ? " of each parameter" : "") +
                       ": the loss rises by " + format_number(a.gradient) + " along the gradient";
    if (!std::isnan(a.eigenvector)) text += ", " + format_number(a.eigenvector) + " along eigenvectors";
    lines.emplace_back("ascent", text + "; first order " + format_number(a.first_order));
  }
  for (const StepCheck& c : s.steps)
    lines.emplace_back("largest step", format_number(c.largest_step) + " of " + c.optimizer + ": growth " +
                                           format_number(c.below) + " a step below it, " + format_number(c.above) +
                                           " above (a quadratic loss: " + format_number(c.expected_below) + ", " +
                                           format_number(c.expected_above) + ")");
  if (s.adam) {
    const AdamSharpness& a = *s.adam;
    lines.emplace_back("as Adam sees it", "largest eigenvalue " + format_number(a.lambda_1) + " +- " +
                                              format_number(a.lambda_1_error) + (a.converged ? "" : ", not converged") +
                                              "; largest stable rate " + format_number(a.largest_rate) + " at beta1 " +
                                              format_number(a.beta1));
    for (const StepCheck& c : a.steps)
      lines.emplace_back("", "growth " + format_number(c.below) + " a step below that rate, " + format_number(c.above) +
                                 " above (a quadratic loss: " + format_number(c.expected_below) + ", " +
                                 format_number(c.expected_above) + ")");
  }
  if (s.blocks) {
    constexpr std::size_t kMostListed = 40;
    for (std::size_t i = 0; i < std::min(kMostListed, s.blocks->each.size()); ++i) {
      const BlockSteps& b = s.blocks->each[i];
      std::string text = one_line(b.name) + ": largest eigenvalue " + format_number(b.lambda_1);
      if (std::isfinite(b.step)) text += ", largest stable step " + format_number(b.step);
      if (std::isfinite(b.adam_lambda_1)) text += "; as Adam sees it " + format_number(b.adam_lambda_1);
      if (std::isfinite(b.adam_rate)) text += ", largest stable rate " + format_number(b.adam_rate);
      lines.emplace_back(i == 0 ? "blocks" : "", text);
    }
    if (s.blocks->each.size() > kMostListed)
      lines.emplace_back(
          "", "... and " + format_count(std::ssize(s.blocks->each) - static_cast<std::int64_t>(kMostListed)) + " more");
  }
  const auto with = [](const Interval& i) {
    std::string text = format_number(i.value);
    if (std::isfinite(i.lower)) text += " [" + format_number(i.lower) + ", " + format_number(i.upper) + "]";
    return text;
  };
  if (s.information && s.information->obstacle.empty()) {
    const Information& i = *s.information;
    lines.emplace_back("Fisher-Rao", "squared norm " + format_number(i.fisher_rao) + " of the model's targets, " +
                                         format_number(i.empirical_fisher_rao) + " of the data's");
    lines.emplace_back("information", "traces " + with(i.fisher_trace) + " of Fisher, " + with(i.empirical_trace) +
                                          " of the empirical one; their ratio " + with(i.empirical_over_fisher));
  }
  if (s.flatness && s.flatness->obstacle.empty())
    lines.emplace_back("rel. flatness", with(s.flatness->value) + " of " + one_line(s.flatness->layer));
  if (std::isfinite(s.critical.step))
    lines.emplace_back("critical step", format_number(s.critical.step) +
                                            " along the gradient raises the loss: sharpness " +
                                            format_number(s.critical.sharpness) + " (g'Hg/g'g " +
                                            format_number(s.critical.directional) + ")");
  if (!s.basin.radius.empty()) {
    std::vector<double> radius = s.basin.radius;
    std::ranges::sort(radius);
    const auto text = [](double r) { return std::isfinite(r) ? format_number(r) : std::string("beyond 10"); };
    lines.emplace_back("basin", "the loss rises by " + format_number(s.basin.tolerance) + " after " +
                                    text(radius.front()) + " to " + text(radius.back()) +
                                    " of the parameters' norm, in " + format_count(std::ssize(radius)) +
                                    " random directions");
  }
  return lines;
}

std::vector<std::pair<std::string, std::string>> quality_lines(const DataComparison& c) {
  std::vector<std::pair<std::string, std::string>> lines;
  const auto with = [](const Interval& i) {
    std::string text = format_number(i.value);
    if (std::isfinite(i.lower)) text += " [" + format_number(i.lower) + ", " + format_number(i.upper) + "]";
    return text;
  };
  lines.emplace_back("loss gap", with(c.gap) + ": " + with(c.own.loss) + " on " + format_count(c.own.rows) +
                                     " own rows, " + with(c.other.loss) + " on " + format_count(c.other.rows) +
                                     " others");
  const auto add = [&](const char* name, Interval DataQuality::*of) {
    if (std::isfinite((c.own.*of).value) && std::isfinite((c.other.*of).value))
      lines.emplace_back(name, with(c.own.*of) + ", others " + with(c.other.*of));
  };
  add("accuracy", &DataQuality::accuracy);
  add("NLL", &DataQuality::nll);
  add("calibration", &DataQuality::ece);
  add("Brier score", &DataQuality::brier);
  if (!c.obstacle.empty()) lines.emplace_back("accuracy", "not measured: " + c.obstacle);
  return lines;
}

}  // namespace hesspect
