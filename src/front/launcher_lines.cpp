#include "launcher_lines.h"

#include <algorithm>
#include <initializer_list>
#include <sstream>
#include <string_view>
#include <utility>

#include "hesspect/core/errors.h"

namespace hesspect {
namespace {

constexpr std::string_view kError = "hesspect: error: ", kWarning = "hesspect: warning: ";
constexpr std::size_t kShortestEdge = 20;    // dashes of a frame's edge
constexpr std::size_t kLongestFrame = 60;    // lines; more is no frame
constexpr std::size_t kLongestRemark = 600;  // characters of a remark as one line

bool is_edge(const std::string& line) {
  return line.size() >= kShortestEdge && line.find_first_not_of('-') == std::string::npos;
}

bool has_any(const std::string& text, std::initializer_list<std::string_view> parts) {
  return std::ranges::any_of(parts, [&](std::string_view part) { return text.find(part) != std::string::npos; });
}

/// Says no more than that the ranks have ended, and with which code.
bool is_general(const std::string& remark) {
  return has_any(remark, {"Primary job  terminated", "Primary job terminated", "exited with non-zero status",
                          "MPI_ABORT was invoked", "Exited with exit code", "Terminating StepId", "Job step aborted",
                          "CANCELLED AT"});
}

/// Says what ended them.
bool is_about_the_end(const std::string& remark) {
  return has_any(remark, {"exited on signal", "exiting improperly", "without calling \"finalize\"",
                          "lost communication", "Killed", "Terminated", "oom"});
}

/// Only counts remarks that are not shown anyway.
bool is_count(const std::string& line) {
  return line.starts_with("[") && has_any(line, {"sent help message help-", "\"orte_base_help_aggregate\""});
}

/// A remark of one line that stands in no frame.
bool is_remark(const std::string& line) {
  constexpr std::string_view kBeginnings[] = {"mpirun: ",           "ssh: ",        "Host key verification failed",
                                              "Permission denied",  "srun: error:", "srun: Terminating",
                                              "srun: Force Termin", "slurmstepd",   "srun: Job step aborted"};
  return std::ranges::any_of(kBeginnings, [&](std::string_view beginning) { return line.starts_with(beginning); });
}

std::string as_one_line(const std::vector<std::string>& lines) {
  std::string all;
  for (const std::string& line : lines) {
    std::istringstream words(line);
    for (std::string word; words >> word;) all += (all.empty() ? "" : " ") + word;
  }
  if (all.size() > kLongestRemark) all = all.substr(0, all.rfind(' ', kLongestRemark)) + " ...";
  return all;
}

}  // namespace

std::vector<std::string> LauncherLines::take(const std::string& line) {
  if (line.starts_with("hesspect: ")) return take_rank_line(line);
  if (is_edge(line)) {
    if (in_frame_) end_frame();
    in_frame_ = !in_frame_;
    return {};
  }
  if (in_frame_) {
    frame_.push_back(line);
    if (frame_.size() <= kLongestFrame) return {};
    in_frame_ = false;
    return std::exchange(frame_, {});
  }
  if (is_count(line) || line.empty() || line.starts_with("Type 'mpirun --help'")) return {};
  if (is_remark(line)) {
    frame_ = {line};
    end_frame();
    return {};
  }
  return take_rank_line(line);
}

std::vector<std::string> LauncherLines::take_warnings() {
  std::vector<std::string> shown;
  for (const std::string& remark : std::exchange(pending_, {})) shown.push_back(std::string(kWarning) + remark);
  return shown;
}

std::vector<std::string> LauncherLines::take_rank_line(const std::string& line) {
  // Ranks are at work: what the launcher has said before was no reason not to start.
  std::vector<std::string> shown = take_warnings();
  if (line.starts_with(kError)) {
    if (error_seen_) return shown;  // what came of the first
    error_seen_ = true;
  }
  shown.push_back(line);
  return shown;
}

void LauncherLines::end_frame() {
  const std::string remark = as_one_line(std::exchange(frame_, {}));
  if (remark.empty()) return;
  if (is_general(remark))
    general_ = general_.empty() ? remark : general_;
  else if (is_about_the_end(remark))
    specific_ = specific_.empty() ? remark : specific_;
  else
    pending_.push_back(remark);
}

std::string LauncherLines::cause() const {
  if (!pending_.empty()) return pending_.front();
  if (specific_.find("signal 9") != std::string::npos)
    return specific_ + " Where memory runs out, the kernel does that: 'hesspect plan' tells what a run takes";
  if (!specific_.empty()) return specific_;
  return general_.empty() ? "the launcher ended without a word" : "a rank ended without a word";
}

std::vector<std::string> LauncherLines::finish(int exit_code) {
  if (in_frame_) end_frame();  // it never closed
  in_frame_ = false;
  const bool failed = exit_code != static_cast<int>(ExitCode::kDone) &&
                      exit_code != static_cast<int>(ExitCode::kNotConverged) &&
                      exit_code != static_cast<int>(ExitCode::kResubmit);
  if (!failed || error_seen_) return take_warnings();
  return {std::string(kError) + cause() + " (exit code " + std::to_string(exit_code) + ")"};
}

}  // namespace hesspect
