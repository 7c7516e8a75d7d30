// The spool's page. Whatever it shows of a job came from outside, so all of it is escaped.
#include <algorithm>
#include <array>
#include <cmath>
#include <ctime>

#include "hesspect/core/text.h"
#include "hesspect/watch/spool_view.h"
#include "spool_style.h"

namespace hesspect {
namespace {

using State = JobView::State;
constexpr std::array kStates = {State::kQueued, State::kRunning, State::kDone, State::kFailed, State::kCancelled};
constexpr std::size_t kMostRows = 200;

std::string html_text(const std::string& text) {
  std::string out;
  for (const char c : one_line(text)) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      case '\'': out += "&#39;"; break;
      default: out += c;
    }
  }
  return out;
}

std::string tag(const std::string& name, const std::string& inside, const std::string& css = "") {
  return "<" + name + (css.empty() ? "" : " class=\"" + css + "\"") + ">" + inside + "</" + name + ">";
}

/// 1.234e-05 as 1.234·10⁻⁵; a dash where it is not known.
std::string figure_html(double value) {
  if (!std::isfinite(value)) return "–";
  std::string text = format_number(value), out;
  if (const std::size_t e = text.find('e'); e != std::string::npos)
    text = text.substr(0, e) + "·10<sup>" + std::to_string(std::stoi(text.substr(e + 1))) + "</sup>";
  for (const char c : text) out += c == '-' ? std::string("−") : std::string(1, c);
  return out;
}

std::string rate_html(double per_s) {
  if (!std::isfinite(per_s)) return "–";
  char text[32];
  std::snprintf(text, sizeof text, per_s < 10 ? "%.2f/s" : "%.0f/s", per_s);
  return text;
}

/// "2026-11-30 09:12:05 UTC", by the machine's own zone.
std::string clock_text(double seconds) {
  if (!(seconds > 0) || seconds > 1e11) return "–";
  const auto whole = static_cast<std::time_t>(seconds);
  std::tm parts{};
  ::localtime_r(&whole, &parts);
  char text[64];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S %Z", &parts);
  return text;
}

std::string span_text(double from, double to) { return from > 0 && to >= from ? format_duration(to - from) : "–"; }

std::string job_cell(const JobView& job) {
  const std::string name = job.name.empty() ? job.id : job.name;
  std::string text = tag("b", html_text(name));
  if (name != job.id) text += tag("span", html_text(job.id), "soft");
  return tag("td", text, "job");
}

std::string cells(std::initializer_list<std::string> values) {
  std::string text;
  for (const std::string& value : values) text += tag("td", value, "number");
  return text;
}

std::string table_of(std::initializer_list<const char*> heads, const std::string& rows, std::size_t left_out) {
  std::string head;
  for (const char* each : heads) head += tag("th", each);
  std::string text = tag("div", tag("table", tag("thead", tag("tr", head)) + tag("tbody", rows)), "wide");
  if (left_out > 0) text += tag("p", "and " + format_count(static_cast<std::int64_t>(left_out)) + " more", "soft");
  return text;
}

std::string running_table(const SpoolView& view, const std::vector<const JobView*>& jobs) {
  std::string rows;
  for (const JobView* job : jobs)
    rows += tag("tr", job_cell(*job) +
                          cells({span_text(job->started, view.now), format_count(job->products),
                                 rate_html(job->products_per_s), figure_html(job->lambda1)}) +
                          tag("td", html_text(job->line), "line"));
  return table_of({"job", "for", "products", "rate", "λ₁", ""}, rows, 0);
}

std::string queue_table(const SpoolView& view, const std::vector<const JobView*>& jobs) {
  std::string rows;
  for (std::size_t i = 0; i < std::min(jobs.size(), kMostRows); ++i)
    rows += tag("tr", cells({std::to_string(i + 1)}) + job_cell(*jobs[i]) +
                          cells({std::to_string(jobs[i]->priority), span_text(jobs[i]->submitted, view.now)}));
  return table_of({"", "job", "priority", "waits"}, rows, jobs.size() - std::min(jobs.size(), kMostRows));
}

std::string ended_table(const std::vector<const JobView*>& jobs) {
  std::string rows;
  for (std::size_t i = 0; i < std::min(jobs.size(), kMostRows); ++i) {
    const JobView& job = *jobs[i];
    std::string state = to_string(job.state);
    const std::string css = "state " + state;
    if (job.exit_code != 0) state += " (" + std::to_string(job.exit_code) + ")";
    rows +=
        tag("tr",
            job_cell(job) + tag("td", tag("span", state, css)) +
                cells({clock_text(job.ended), span_text(job.started, job.ended), format_count(job.products),
                       figure_html(job.lambda1), figure_html(job.trace)}) +
                tag("td", html_text(job.line) + (job.result.empty() ? "" : tag("span", html_text(job.result), "soft")),
                    "line"));
  }
  return table_of({"job", "state", "ended", "took", "products", "λ₁", "trace", ""}, rows,
                  jobs.size() - std::min(jobs.size(), kMostRows));
}

}  // namespace

std::string to_string(State state) {
  switch (state) {
    case State::kQueued: return "queued";
    case State::kRunning: return "running";
    case State::kDone: return "done";
    case State::kFailed: return "failed";
    case State::kCancelled: return "cancelled";
  }
  return "";
}

std::string spool_page(const SpoolView& view, int refresh_s) {
  std::vector<const JobView*> running, queued, ended;
  std::array<std::int64_t, kStates.size()> counts{};
  for (const JobView& job : view.jobs) {
    ++counts[static_cast<std::size_t>(job.state)];
    (job.state == State::kRunning ? running : job.state == State::kQueued ? queued : ended).push_back(&job);
  }
  std::ranges::stable_sort(ended, std::ranges::greater{}, &JobView::ended);
  std::string cards;
  for (const State state : kStates)
    cards += tag("div", tag("b", format_count(counts[static_cast<std::size_t>(state)])) + tag("span", to_string(state)),
                 "card " + to_string(state));
  std::string body = tag("h1", "Spool " + tag("span", html_text(view.spool), "path"));
  body += tag("p", "As of " + clock_text(view.now), "soft") + tag("div", cards, "cards");
  body += tag("h2", "Running") + (running.empty() ? tag("p", "Nothing runs.", "soft") : running_table(view, running));
  if (!queued.empty()) body += tag("h2", "Waiting, in their order") + queue_table(view, queued);
  if (!ended.empty()) body += tag("h2", "Ended, the last first") + ended_table(ended);
  return "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
         "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">"
         "<meta http-equiv=\"refresh\" content=\"" +
         std::to_string(refresh_s) + "\">" + tag("title", "hesspect: " + html_text(view.spool)) +
         tag("style", kSpoolStyle) + "</head>\n<body>" + tag("main", body) + "</body></html>\n";
}

void write_spool_page(const SpoolView& view, const std::filesystem::path& path) {
  write_text_file(path, spool_page(view));
}

void set_spool_metrics(Metrics& metrics, const SpoolView& view) {
  std::array<std::int64_t, kStates.size()> counts{};
  const JobView* last = nullptr;
  for (const JobView& job : view.jobs) {
    ++counts[static_cast<std::size_t>(job.state)];
    const bool has_figures = std::isfinite(job.lambda1) || std::isfinite(job.trace);
    if (job.ended > 0 && has_figures && (last == nullptr || job.ended >= last->ended)) last = &job;
  }
  for (const State state : kStates)
    metrics.set("hesspect_jobs", {{"state", to_string(state)}},
                static_cast<double>(counts[static_cast<std::size_t>(state)]));
  if (last == nullptr) return;
  if (std::isfinite(last->lambda1)) metrics.set("hesspect_lambda_max", {}, last->lambda1);
  if (std::isfinite(last->trace)) metrics.set("hesspect_trace", {}, last->trace);
}

}  // namespace hesspect
