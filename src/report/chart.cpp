#include "chart.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "hesspect/core/text.h"

namespace hesspect {
namespace {

// Of a chart, in its own units.
constexpr double kWidth = 600, kHeight = 340;
constexpr double kLeft = 72, kRight = 16, kTop = 14, kBottom = 54;
constexpr double kRow = 20, kNames = 250;  // of rows with names: at most
constexpr std::size_t kMostTicks = 8;

std::string coordinate(double x) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f", x);
  return text;
}

std::string attributes(const std::string& css, std::initializer_list<std::pair<const char*, double>> numbers) {
  std::string text = " class=\"" + css + "\"";
  for (const auto& [name, value] : numbers) text += std::string(" ") + name + "=\"" + coordinate(value) + "\"";
  return text;
}

std::string tipped(const std::string& element, const std::string& inside, const std::string& tip) {
  return "<" + element + inside + (tip.empty() ? "/>" : "><title>" + escaped(tip) + "</title></" + element + ">");
}

std::string label(double x, double y, const std::string& css, const std::string& text) {
  return "<text" + attributes(css, {{"x", x}, {"y", y}}) + ">" + escaped(text) + "</text>";
}

/// 10⁻³, and 0.1 to 1000 as they are.
std::string power_text(int exponent, bool negative) {
  static const char* const digits[] = {"⁰", "¹", "²", "³", "⁴", "⁵", "⁶", "⁷", "⁸", "⁹"};
  std::string text = negative ? "−" : "";
  if (exponent >= -1 && exponent <= 3) return text + format_number(std::pow(10.0, exponent));
  text += exponent < 0 ? "10⁻" : "10";
  for (const char c : std::to_string(std::abs(exponent))) text += digits[c - '0'];
  return text;
}

std::string opened(double width, double height, const std::string& title) {
  return "<svg viewBox=\"0 0 " + coordinate(width) + " " + coordinate(height) + "\" role=\"img\" aria-label=\"" +
         escaped(title) + "\">";
}

/// The end of a long name, whole characters of UTF-8.
std::string shortened(const std::string& name) {
  constexpr std::size_t kLongest = 36;
  if (name.size() <= kLongest) return name;
  std::size_t begin = name.size() - kLongest;
  while (begin < name.size() && (static_cast<unsigned char>(name[begin]) & 0xC0) == 0x80) ++begin;
  return "…" + name.substr(begin);
}

/// Room for names of rows beside them.
double names_width(const std::vector<std::string>& names) {
  std::size_t longest = 0;
  for (const std::string& name : names) longest = std::max(longest, name.size());
  return std::min(kNames, 7.0 * static_cast<double>(longest) + 20);
}

/// Every so many of the ticks, zero among them, so that no more than kMostTicks are left.
std::vector<std::pair<double, std::string>> thinned(const std::vector<std::pair<double, std::string>>& ticks) {
  const std::size_t every = (ticks.size() + kMostTicks - 1) / kMostTicks;
  if (every <= 1) return ticks;
  std::size_t zero = 0;
  for (std::size_t i = 0; i < ticks.size(); ++i)
    if (ticks[i].first == 0) zero = i;
  std::vector<std::pair<double, std::string>> kept;
  for (std::size_t i = 0; i < ticks.size(); ++i)
    if (i % every == zero % every) kept.push_back(ticks[i]);
  return kept;
}

/// Two points for each but the last: y[i] at x[i] and at x[i + 1].
std::pair<std::vector<double>, std::vector<double>> stepped(const std::vector<double>& x,
                                                            const std::vector<double>& y) {
  std::pair<std::vector<double>, std::vector<double>> out;
  for (std::size_t i = 0; i + 1 < x.size(); ++i) {
    out.first.insert(out.first.end(), {x[i], x[i + 1]});
    out.second.insert(out.second.end(), {y[i], y[i]});
  }
  return out;
}

}  // namespace

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : one_line(text)) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&quot;";
    else
      out += c;
  }
  return out;
}

Axis::Axis(Kind kind, double low, double high, double threshold)
    : kind_(kind), low_(low), high_(high), threshold_(threshold) {
  if (!std::isfinite(low_)) low_ = kind_ == Kind::kLog ? 1 : 0;
  if (kind_ == Kind::kLog && !(low_ > 0)) low_ = 1e-300;
  if (!(high_ > low_) || !std::isfinite(high_ - low_)) high_ = low_ + (low_ != 0 ? std::abs(low_) : 1);
  const double reach = std::max(std::abs(low_), std::abs(high_));
  if (!(threshold_ > 1e-30 * reach) || !std::isfinite(threshold_)) threshold_ = 1e-6 * reach;
}

Axis Axis::linear(double low, double high) { return {Kind::kLinear, low, high, 1}; }
Axis Axis::log(double low, double high) { return {Kind::kLog, low, high, 1}; }
Axis Axis::symlog(double low, double high, double threshold) { return {Kind::kSymlog, low, high, threshold}; }

double Axis::transformed(double x) const {
  if (kind_ == Kind::kLog) return x > 0 ? std::log(x) : std::log(low_);
  if (kind_ == Kind::kSymlog) return std::copysign(std::log1p(std::abs(x) / threshold_), x);
  return x;
}

double Axis::at(double x) const {
  return (transformed(x) - transformed(low_)) / (transformed(high_) - transformed(low_));
}

std::vector<std::pair<double, std::string>> Axis::ticks() const {
  std::vector<std::pair<double, std::string>> all;
  const auto add = [&](double x, const std::string& text) {
    if (x >= low_ && x <= high_) all.emplace_back(x, text);
  };
  if (kind_ == Kind::kLinear) {
    const double raw = (high_ - low_) / 6, unit = std::pow(10.0, std::floor(std::log10(raw)));
    const double step = unit * (raw / unit < 1.4 ? 1 : raw / unit < 2.8 ? 2 : raw / unit < 7 ? 5 : 10);
    for (double i = std::ceil(low_ / step); i <= std::floor(high_ / step); ++i) add(i * step, format_number(i * step));
    return all;
  }
  const double most = std::max(std::abs(low_), std::abs(high_));
  const double least = kind_ == Kind::kLog ? low_ : threshold_;
  const int first = static_cast<int>(std::ceil(std::log10(least) - 1e-9)),
            last = static_cast<int>(std::floor(std::log10(most)));
  if (kind_ == Kind::kSymlog) {
    for (int e = last; e >= first; --e) add(-std::pow(10.0, e), power_text(e, true));
    add(0, "0");
  }
  for (int e = first; e <= last; ++e) add(std::pow(10.0, e), power_text(e, false));
  return thinned(all);
}

Chart::Chart(std::string title, Axis x, Axis y, std::string x_label, std::string y_label)
    : title_(std::move(title)), x_label_(std::move(x_label)), y_label_(std::move(y_label)), x_(x), y_(y) {}

double Chart::px(double x) const { return kLeft + (kWidth - kLeft - kRight) * std::clamp(x_.at(x), 0.0, 1.0); }
double Chart::py(double y) const {
  return kHeight - kBottom - (kHeight - kTop - kBottom) * std::clamp(y_.at(y), 0.0, 1.0);
}

std::string Chart::path(const std::vector<double>& x, const std::vector<double>& y) const {
  std::string text;
  bool pen_down = false;
  for (std::size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
    if (!std::isfinite(x[i]) || !std::isfinite(y[i])) {
      pen_down = false;
      continue;
    }
    text += (pen_down ? "L" : "M") + coordinate(px(x[i])) + " " + coordinate(py(y[i]));
    pen_down = true;
  }
  return text;
}

void Chart::line(const std::vector<double>& x, const std::vector<double>& y, const std::string& css) {
  const std::string d = path(x, y);
  if (!d.empty()) marks_ += "<path class=\"" + css + "\" d=\"" + d + "\"/>";
}

void Chart::area(const std::vector<double>& x, const std::vector<double>& low, const std::vector<double>& high,
                 const std::string& css) {
  std::vector<double> round_x(x), round_y(high);
  round_x.insert(round_x.end(), x.rbegin(), x.rend());
  round_y.insert(round_y.end(), low.rbegin(), low.rend());
  const std::string d = path(round_x, round_y);
  if (!d.empty()) marks_ += "<path class=\"" + css + "\" d=\"" + d + "Z\"/>";
}

void Chart::steps(const std::vector<double>& x, const std::vector<double>& y, const std::string& css) {
  const auto [at, value] = stepped(x, y);
  line(at, value, css);
}

void Chart::step_area(const std::vector<double>& x, const std::vector<double>& low, const std::vector<double>& high,
                      const std::string& css) {
  const auto [at, least] = stepped(x, low);
  area(at, least, stepped(x, high).second, css);
}

void Chart::mark(double x, double y, double low, double high, const std::string& css, const std::string& tip) {
  if (!std::isfinite(x) || !std::isfinite(y)) return;
  if (std::isfinite(low) && std::isfinite(high))
    marks_ +=
        "<line" + attributes(css + " bar", {{"x1", px(x)}, {"x2", px(x)}, {"y1", py(low)}, {"y2", py(high)}}) + "/>";
  marks_ += tipped("circle", attributes(css, {{"cx", px(x)}, {"cy", py(y)}, {"r", 3.6}}), tip);
}

void Chart::cell(double x_low, double x_high, double y_low, double y_high, double shade, const std::string& tip) {
  if (!std::isfinite(shade)) return;
  marks_ += tipped("rect",
                   attributes("cell", {{"x", px(x_low)},
                                       {"y", py(y_high)},
                                       {"width", px(x_high) - px(x_low)},
                                       {"height", py(y_low) - py(y_high)},
                                       {"fill-opacity", std::clamp(shade, 0.0, 1.0)}}),
                   tip);
}

void Chart::vertical(double x, const std::string& css, const std::string& tip) {
  if (!(x >= x_.low() && x <= x_.high())) return;
  marks_ +=
      tipped("line", attributes(css, {{"x1", px(x)}, {"x2", px(x)}, {"y1", kTop}, {"y2", kHeight - kBottom}}), tip);
}

void Chart::stem(double x, const std::string& css, const std::string& tip) {
  if (!(x >= x_.low() && x <= x_.high())) return;
  const double foot = kHeight - kBottom;
  marks_ += tipped("line", attributes(css, {{"x1", px(x)}, {"x2", px(x)}, {"y1", foot - 15}, {"y2", foot}}), tip);
}

std::string Chart::svg() const {
  std::string text = opened(kWidth, kHeight, title_);
  const double foot = kHeight - kBottom;
  for (const auto& [x, name] : x_.ticks()) {
    text += "<line" + attributes("grid", {{"x1", px(x)}, {"x2", px(x)}, {"y1", kTop}, {"y2", foot}}) + "/>";
    text += label(px(x), foot + 17, "tick middle", name);
  }
  for (const auto& [y, name] : y_.ticks()) {
    text += "<line" + attributes("grid", {{"x1", kLeft}, {"x2", kWidth - kRight}, {"y1", py(y)}, {"y2", py(y)}}) + "/>";
    text += label(kLeft - 7, py(y) + 4, "tick end", name);
  }
  text += marks_;
  text += "<line" + attributes("axis", {{"x1", kLeft}, {"x2", kWidth - kRight}, {"y1", foot}, {"y2", foot}}) + "/>";
  text += "<line" + attributes("axis", {{"x1", kLeft}, {"x2", kLeft}, {"y1", kTop}, {"y2", foot}}) + "/>";
  text += label((kLeft + kWidth - kRight) / 2, kHeight - 12, "name middle", x_label_);
  text += "<text class=\"name middle\" transform=\"translate(15 " + coordinate((kTop + foot) / 2) + ") rotate(-90)\">" +
          escaped(y_label_) + "</text>";
  double y = kTop + 12;
  for (const auto& [css, name] : keys_) {
    text += "<line" +
            attributes("sample " + css,
                       {{"x1", kWidth - kRight - 26}, {"x2", kWidth - kRight - 4}, {"y1", y - 4}, {"y2", y - 4}}) +
            "/>";
    text += label(kWidth - kRight - 32, y, "tick end", name);
    y += 17;
  }
  return text + "</svg>";
}

std::string row_chart(const std::string& title, const std::vector<NamedValue>& rows, const Axis& axis,
                      const std::string& name) {
  const double foot = kTop + kRow * static_cast<double>(rows.size()), height = foot + kBottom;
  std::vector<std::string> names;
  for (const NamedValue& row : rows) names.push_back(row.name);
  const double left = names_width(names);
  const auto at = [&](double x) { return left + (kWidth - left - kRight) * std::clamp(axis.at(x), 0.0, 1.0); };
  std::string text = opened(kWidth, height, title);
  for (const auto& [x, tick] : axis.ticks()) {
    text += "<line" + attributes(x == 0 ? "axis" : "grid", {{"x1", at(x)}, {"x2", at(x)}, {"y1", kTop}, {"y2", foot}}) +
            "/>";
    text += label(at(x), foot + 17, "tick middle", tick);
  }
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const NamedValue& row = rows[i];
    const double y = kTop + kRow * (static_cast<double>(i) + 0.5);
    text += label(left - 9, y + 4, "tick end", shortened(row.name));
    const std::string css = row.value < 0 ? "negative" : "point";
    if (std::isfinite(row.low) && std::isfinite(row.high))
      text +=
          "<line" + attributes(css + " bar", {{"x1", at(row.low)}, {"x2", at(row.high)}, {"y1", y}, {"y2", y}}) + "/>";
    text += tipped("circle", attributes(css, {{"cx", at(row.value)}, {"cy", y}, {"r", 3.8}}),
                   row.name + ": " + format_number(row.value));
  }
  return text + label((left + kWidth - kRight) / 2, height - 12, "name middle", name) + "</svg>";
}

std::string heat_chart(const std::string& title, const std::vector<std::string>& rows,
                       const std::vector<std::string>& columns, const std::vector<double>& values) {
  const double cell =
      std::clamp((kWidth - kNames - kRight) / static_cast<double>(std::max<std::size_t>(columns.size(), 1)), 4.0, 40.0);
  const double tall = std::min(cell, kRow * 1.5), height = kTop + tall * static_cast<double>(rows.size()) + kBottom;
  std::string text = opened(kWidth, height, title);
  for (std::size_t r = 0; r < rows.size(); ++r) {
    const double y = kTop + tall * static_cast<double>(r);
    if (tall >= 9) text += label(kNames - 9, y + tall / 2 + 4, "tick end", shortened(rows[r]));
    for (std::size_t c = 0; c < columns.size(); ++c) {
      const double value = values.at(r * columns.size() + c);
      if (!std::isfinite(value)) continue;
      text += tipped("rect",
                     attributes("cell", {{"x", kNames + cell * static_cast<double>(c)},
                                         {"y", y},
                                         {"width", cell - 1},
                                         {"height", tall - 1},
                                         {"fill-opacity", std::clamp(value, 0.0, 1.0)}}),
                     rows[r] + ", " + columns[c] + ": " + format_number(value));
    }
  }
  return text + "</svg>";
}

}  // namespace hesspect
