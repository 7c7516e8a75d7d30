#include "hesspect/series/series_book.h"

#include <fnmatch.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

#include "hesspect/core/errors.h"
#include "hesspect/core/hdf5_trial.h"
#include "hesspect/core/log.h"
#include "hesspect/core/text.h"
#include "hesspect/io/atomic_file.h"
#include "hesspect/io/result_file.h"
#include "hesspect/spectrum/trace_change.h"

namespace hesspect {
namespace {

namespace fs = std::filesystem;

/// A checkpoint whose run has ended the process so often without a word, and without a gain between, is given up.
constexpr std::int64_t kMostDeaths = 3;

constexpr int kFailedCode = static_cast<int>(ExitCode::kBadInput);

double seconds_since(std::chrono::steady_clock::time_point then) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - then).count();
}

/// Whether a comes before b.
bool comes_before(const SeriesEntry& a, const SeriesEntry& b, SeriesOrder order) {
  switch (order) {
    case SeriesOrder::kStep:
      if ((a.step < 0) != (b.step < 0)) return b.step < 0;  // those without a step come last
      return a.step < b.step;
    case SeriesOrder::kTime: return a.time < b.time;
    case SeriesOrder::kListed: return false;
  }
  return false;
}

std::string difference(const std::string& there, const std::string& here) {
  std::istringstream a(there), b(here);
  for (std::string left, right;;) {
    const bool more_left = static_cast<bool>(std::getline(a, left)),
               more_right = static_cast<bool>(std::getline(b, right));
    if (!more_left && !more_right) return "nothing";
    if (!more_left) left.clear();
    if (!more_right) right.clear();
    if (left != right)
      return quote(left.empty() ? "nothing" : left) + " there, " + quote(right.empty() ? "nothing" : right) + " here";
  }
}

std::string configuration(const RunConfig& config) {
  return to_ini_of_result(config) + "# weights below: " + format_names(config.model.weights, 100) + "\n";
}

double number_of(const std::string& text, const std::string& what) {
  std::istringstream in(text);
  double value = 0;
  std::string more;
  if (!(in >> value) || (in >> more) || !std::isfinite(value) || value < 0)
    throw UsageError(what + ": expected a learning rate, got " + quote(text));
  return value;
}

std::map<std::int64_t, double> rates_in(const std::string& file) {
  std::ifstream in(file);
  if (!in) throw InputError("--learning-rate " + quote(file) + ": neither a number nor a file that can be read");
  std::map<std::int64_t, double> rates;
  std::int64_t number = 0;
  for (std::string line; std::getline(in, line);) {
    ++number;
    std::ranges::replace(line, ',', ' ');
    std::istringstream fields(line);
    std::int64_t step = 0;
    std::string rate;
    if (line.find_first_not_of(" \t\r") == std::string::npos || line.front() == '#') continue;
    if (!(fields >> step >> rate)) {
      if (rates.empty()) continue;  // a heading
      throw InputError(file + ":" + std::to_string(number) + ": expected 'step rate', got " + quote(line));
    }
    rates[step] = number_of(rate, file + ":" + std::to_string(number));
  }
  return rates;
}

const std::string& digest_in(const std::vector<SourceFile>& files) {
  static const std::string none;
  return files.empty() ? none : files.front().sha256;
}

}  // namespace

SeriesBook::SeriesBook(const RunConfig& config, std::string version, ProductsKept products_kept)
    : config_(config), series_(config_.series), version_(std::move(version)), products_kept_(std::move(products_kept)) {
  const fs::path output = config_.output.output;
  check_output(output, /*overwrite=*/true);  // that anything can be written there
  lock_ = std::make_unique<SeriesLock>(output);
  ledger_file_ = output.string() + ".ledger.json";
  results_ = series_.results.empty() ? (output.parent_path() / output.stem()).string() + "-results" : series_.results;
  if (const std::string& rate = series_.learning_rate; !rate.empty()) {
    std::error_code error;
    if (fs::is_regular_file(rate, error))
      rates_ = rates_in(rate);
    else
      rate_ = number_of(rate, "--learning-rate");
  }

  std::optional<SeriesLedger> earlier = config_.output.force ? std::nullopt : read_series_ledger(ledger_file_);
  if (!earlier) check_output(output, config_.output.force);
  const std::string here = configuration(config_);
  if (earlier && earlier->config != here)
    throw UsageError("the series in " + quote(output.string()) + " is of another configuration: " +
                     difference(earlier->config, here) + "; --force begins it anew, another --output another one");
  make_folders(results_);
  if (earlier) {
    ledger_ = std::move(*earlier);
    ledger_.ended = false;
    for (SeriesEntry& entry : ledger_.entries) {
      if (entry.state == SeriesState::kFailed && series_.retry_failed) {
        entry.state = SeriesState::kFound;
        entry.count = {};
        entry.reason.clear();
      }
      if (entry.state != SeriesState::kDone) continue;
      try {
        try_hdf5_file(absolute_result(entry.result));
        rows_[entry.result] = series_row(read_result(absolute_result(entry.result)));
      } catch (const InputError& what) {
        log_warning(std::string(what.what()) + "; " + quote(entry.name) + " is taken again");
        entry.state = SeriesState::kFound;
      }
    }
    log_info("the series goes on: " + summary());
  } else {
    ledger_.config = here;
  }
  save();
  if (series_.follow) watch_ = std::make_unique<FolderWatch>(watched_folders(series_.checkpoints));
  if (!rows_.empty()) write_file();
}

std::string SeriesBook::absolute_result(const std::string& in_ledger) const {
  const fs::path result = in_ledger;
  return result.is_absolute() ? result.string() : (fs::path(config_.output.output).parent_path() / result).string();
}

void SeriesBook::save() { write_series_ledger(ledger_file_, ledger_); }

// --- what is there --------------------------------------------------------------------------------------------------

void SeriesBook::add(const FoundCheckpoint& found) {
  SeriesEntry entry;
  entry.path = found.path.string();
  entry.name = found.name;
  entry.step = found.step;
  entry.time = found.time;
  entry.overlap = SeriesRow::kNotKnown;
  const auto counted =
      std::ranges::count_if(ledger_.entries, [](const SeriesEntry& one) { return one.state != SeriesState::kGone; });
  if (series_.every > 1 && counted % series_.every != 0) {
    entry.state = SeriesState::kSkipped;
    entry.fingerprint = fingerprint(found.path);
    entry.reason = "--every " + std::to_string(series_.every);
  }
  ledger_.entries.push_back(std::move(entry));
}

/// Whether a path that is gone was one of the checkpoints that are asked for.
bool SeriesBook::may_be_ours(const fs::path& path) const {
  const std::string name = path.filename().string();
  if (!is_checkpoint_name(name)) return false;
  for (const std::string& pattern : single_patterns(series_.checkpoints)) {
    std::error_code error;
    if (fs::is_directory(pattern, error)) {
      if (path.parent_path() == fs::path(pattern).lexically_normal()) return true;
    } else if (fnmatch(fs::path(pattern).lexically_normal().c_str(), path.c_str(), FNM_PATHNAME) == 0) {
      return true;
    }
  }
  return false;
}

void SeriesBook::note_gone(const fs::path& path) {
  std::error_code error;
  if (fs::exists(path, error) || ledger_.find(path.string()) != nullptr || !may_be_ours(path)) return;
  FoundCheckpoint found{path, path.filename().string(), step_of_name(path.filename().string()), 0};
  add(found);
  SeriesEntry& entry = ledger_.entries.back();
  if (entry.state == SeriesState::kSkipped) return;
  entry.state = SeriesState::kGone;
  entry.reason = "it came and went before it was read";
  log_warning("checkpoint " + quote(entry.name) + " " + "came and went before it was read");
}

/// Notes what is new, what is gone and what has changed since it was taken.
void SeriesBook::look() {
  const std::size_t before = ledger_.entries.size();
  bool changed = false;
  unsettled_ = false;
  const std::vector<FoundCheckpoint> found = find_checkpoints(series_.checkpoints, !series_.follow && !looked_);
  looked_ = true;
  std::vector<const FoundCheckpoint*> fresh;
  for (const FoundCheckpoint& one : found) {
    SeriesEntry* const entry = ledger_.find(one.path.string());
    if (entry == nullptr) {
      fresh.push_back(&one);
    } else if (entry->state == SeriesState::kGone) {
      fresh.push_back(&one);  // it is there again
    } else if (!entry->is_open() && !entry->fingerprint.empty() && entry->fingerprint != fingerprint(one.path)) {
      // Written to since it was taken. Its content decides, once it is settled: a copy of the same is none.
      if (series_.follow && !is_settled(entry->path, fingerprint(one.path))) {
        unsettled_ = true;
        continue;
      }
      try {
        if (digest_of(one.path) == entry->sha256) {
          entry->fingerprint = fingerprint(one.path);
          changed = true;
          continue;
        }
      } catch (const InputError&) {  // gone again
      }
      fresh.push_back(&one);
    }
  }
  std::ranges::stable_sort(fresh, [&](const FoundCheckpoint* a, const FoundCheckpoint* b) {
    SeriesEntry left, right;
    left.step = a->step, left.time = a->time, right.step = b->step, right.time = b->time;
    return comes_before(left, right, series_.order);
  });
  for (const FoundCheckpoint* one : fresh) add(*one);
  if (watch_) {
    for (const fs::path& path : watch_->take_gone()) note_gone(path);
    if (watch_->take_overflow())
      log_warning("changes came faster than they were taken: a checkpoint that came and went may be missing");
  }
  for (SeriesEntry& entry : ledger_.entries) {
    std::error_code error;
    // A file system that doesn't answer says nothing of what is on it.
    if (entry.state != SeriesState::kFound || fs::exists(entry.path, error) || error) continue;
    entry.state = SeriesState::kGone;
    entry.reason = "it was removed before it was read";
    log_warning("checkpoint " + quote(entry.name) + " was removed before it was read");
    changed = true;
  }
  if (changed || ledger_.entries.size() != before) save();
}

std::vector<SeriesEntry*> SeriesBook::open_entries() {
  std::vector<SeriesEntry*> open;
  for (SeriesEntry& entry : ledger_.entries)
    if (entry.is_open()) open.push_back(&entry);
  std::ranges::stable_sort(open, [&](const SeriesEntry* a, const SeriesEntry* b) {
    const bool a_runs = a->state == SeriesState::kRunning, b_runs = b->state == SeriesState::kRunning;
    if (a_runs != b_runs) return a_runs;  // what an earlier start has begun
    return comes_before(*a, *b, series_.order);
  });
  return open;
}

/// Whether a path's files are as they were a poll ago.
bool SeriesBook::is_settled(const std::string& path, const std::string& fingerprint) {
  Seen& seen = seen_[path];
  if (fingerprint != seen.fingerprint || fingerprint.empty()) {
    seen = {fingerprint, Clock::now(), "it is being written"};
    return false;
  }
  return seconds_since(seen.since) >= series_.poll_s;
}

/// Whole, and as it was a poll ago; without --follow it is taken as it is.
bool SeriesBook::is_ready(SeriesEntry& entry) {
  if (!series_.follow || entry.state == SeriesState::kRunning) return true;
  const std::string now = fingerprint(entry.path);
  const auto before = seen_.find(entry.path);
  if (before != seen_.end() && before->second.why.empty() && !now.empty() && now != before->second.fingerprint) {
    entry.reason = "what was there first was replaced before it was read";
    log_warning("checkpoint " + quote(entry.name) + ": " + entry.reason);
    save();
  }
  if (!is_settled(entry.path, now)) return false;
  Seen& seen = seen_[entry.path];
  seen.why = why_not_whole(entry.path, series_.marker);
  return seen.why.empty();
}

bool SeriesBook::is_over() {
  if (!series_.follow) return true;
  std::error_code error;
  if (!series_.end_marker.empty() && fs::exists(series_.end_marker, error)) {
    // What came between the last look and the marker is found by a look after it.
    if (!std::exchange(end_seen_, true)) {
      changed_ = true;
      return false;
    }
    if (unsettled_) return false;
    for (SeriesEntry* entry : open_entries()) {
      const Seen& seen = seen_[entry->path];
      if (seconds_since(seen.since) < series_.poll_s || seen.fingerprint.empty()) return false;  // a last look
      entry->state = SeriesState::kFailed;
      entry->exit_code = kFailedCode;
      entry->reason = "it never became whole: " + seen.why;
      log_warning("checkpoint " + quote(entry->name) + " never became whole: " + seen.why);
      save();
    }
    return true;
  }
  if (series_.until < 0) return false;
  for (const SeriesEntry& entry : ledger_.entries)
    if (entry.is_open() && entry.step >= 0 && entry.step <= series_.until) return false;
  return std::ranges::any_of(ledger_.entries, [&](const SeriesEntry& entry) {
    return !entry.is_open() && entry.state != SeriesState::kGone && entry.step >= series_.until;
  });
}

// --- one after the other --------------------------------------------------------------------------------------------

std::string SeriesBook::result_name(const SeriesEntry& entry) const {
  const std::string stem = result_stem(entry.name);
  const fs::path folder = fs::path(results_).lexically_relative(
      fs::path(config_.output.output).parent_path().empty() ? "." : fs::path(config_.output.output).parent_path());
  const fs::path base = folder.empty() ? fs::absolute(results_) : folder;
  for (int copy = 1;; ++copy) {
    const std::string name = (base / (stem + (copy > 1 ? "-" + std::to_string(copy) : "") + ".h5")).string();
    if (std::ranges::none_of(ledger_.entries, [&](const SeriesEntry& one) { return one.result == name; })) return name;
  }
}

SeriesStep SeriesBook::take(SeriesEntry& entry) {
  SeriesStep step;
  step.kind = SeriesStep::Kind::kWait;
  const bool resumes = entry.state == SeriesState::kRunning;
  const std::string begun = entry.sha256;
  const auto close = [&](SeriesState state, const std::string& reason) {
    std::error_code error;
    const bool is_gone = state == SeriesState::kFailed && !fs::exists(entry.path, error) && !error;
    entry.state = is_gone ? SeriesState::kGone : state;
    entry.reason = is_gone ? "it was removed before it was read" : reason;
    if (state == SeriesState::kFailed) {
      entry.exit_code = kFailedCode;
      log_warning("checkpoint " + quote(entry.name) + " has failed: " + entry.reason);
    } else {
      log_info("checkpoint " + quote(entry.name) + " is skipped: " + reason);
    }
    save();
  };
  const Boot boot = this_boot();
  if (entry.count.starts > 0) {
    const std::int64_t kept = products_kept_ ? products_kept_(absolute_result(entry.result)) : 0;
    entry.count.add_death(kept, is_started_anew(entry.boot, boot));
  }
  if (entry.count.is_enough(kMostDeaths)) {
    close(SeriesState::kFailed, "its run has ended the process " + std::to_string(entry.count.starts) +
                                    " times without an error, the last " + std::to_string(entry.count.deaths) +
                                    " without a gain; --retry-failed tries it again");
    return step;
  }
  std::string digest;
  try {
    const std::string why = why_not_whole(entry.path, series_.marker);
    if (!why.empty() && !resumes) {
      close(SeriesState::kFailed, why);
      return step;
    }
    entry.fingerprint = fingerprint(entry.path);
    digest = why.empty() ? digest_of(entry.path) : entry.sha256;
  } catch (const InputError& what) {
    close(SeriesState::kFailed, what.what());
    return step;
  }
  for (const SeriesEntry& other : ledger_.entries)
    if (other.state == SeriesState::kDone && other.sha256 == digest) {
      close(SeriesState::kSkipped, "its content is that of " + quote(other.name));
      return step;
    }
  if (entry.result.empty()) entry.result = result_name(entry);
  entry.sha256 = digest;
  entry.state = SeriesState::kRunning;
  ++entry.count.starts;
  entry.boot = boot;
  current_ = static_cast<std::size_t>(&entry - ledger_.entries.data());
  save();
  step.kind = SeriesStep::Kind::kTake;
  step.checkpoint = entry.path;
  step.name = entry.name;
  step.result = absolute_result(entry.result);
  step.anew = resumes && digest != begun;
  step.resumes = resumes && !step.anew;
  std::error_code error;
  if (!ledger_.last.empty() && fs::exists(absolute_result(ledger_.last), error))
    step.last = absolute_result(ledger_.last);
  for (const SeriesEntry& one : ledger_.entries) {
    if (one.state == SeriesState::kSkipped) continue;
    ++step.known;
    if (!one.is_open() || &one == &entry) ++step.number;
  }
  return step;
}

SeriesStep SeriesBook::next() {
  SeriesStep waiting;
  waiting.kind = SeriesStep::Kind::kWait;
  const bool polls = seconds_since(looked_at_) >= series_.poll_s;
  if (series_.follow && looked_ && !changed_ && !polls) return waiting;
  for (;;) {
    changed_ = false;
    look();
    bool closed = false;
    for (SeriesEntry* entry : open_entries()) {
      if (!is_ready(*entry)) continue;
      const SeriesStep step = take(*entry);
      if (step.kind == SeriesStep::Kind::kTake) return step;
      closed = true;  // without a run: on to the next
      break;
    }
    if (closed) continue;
    if (!is_over()) {
      looked_at_ = Clock::now();
      return waiting;
    }
    ledger_.ended = true;
    save();
    if (!rows_.empty()) write_file();
    return {};
  }
}

void SeriesBook::wait(double most_s) {
  if (watch_ && watch_->wait(most_s)) changed_ = true;
}

void SeriesBook::done(int exit_code, bool fresh, double overlap, std::int64_t products_before) {
  changed_ = true;  // the next one may be there
  SeriesEntry& entry = ledger_.entries[current_];
  const RunResult result = read_result(absolute_result(entry.result));
  const std::string &model = digest_in(result.process.model), &data = digest_in(result.process.data);
  if (ledger_.model.empty()) ledger_.model = model;
  if (ledger_.data.empty()) ledger_.data = data;
  if (ledger_.model != model || ledger_.data != data) {
    const std::string what = ledger_.model != model ? "the model file" : "the data file";
    failed(kFailedCode, what + " has other content than when the series began");
    throw InputError(what + " has other content than when the series began, so that " + quote(entry.name) +
                     " can't be compared with the checkpoints before; --force begins the series anew");
  }
  SeriesRow row = series_row(result);
  entry.exit_code = exit_code;
  row.products += products_before;
  entry.products = row.products;
  entry.seconds = row.seconds;
  entry.fresh = fresh;
  entry.overlap = overlap;
  const std::string now = fingerprint(entry.path);
  if (!now.empty() && now != entry.fingerprint) {
    failed(kFailedCode, "it was changed while it was read");
    return;
  }
  entry.state = SeriesState::kDone;
  entry.count = {};
  ledger_.last = entry.result;
  save();
  rows_[entry.result] = std::move(row);
  write_file();
}

void SeriesBook::failed(int exit_code, const std::string& line) {
  changed_ = true;
  SeriesEntry& entry = ledger_.entries[current_];
  std::error_code error;
  const bool is_gone = !fs::exists(entry.path, error) && !error;
  entry.state = is_gone ? SeriesState::kGone : SeriesState::kFailed;
  entry.exit_code = exit_code;
  entry.reason = is_gone ? "it was removed while it was read: " + line : line;
  log_warning("checkpoint " + quote(entry.name) + " has failed: " + entry.reason);
  save();
}

void SeriesBook::stopped() {
  SeriesEntry& entry = ledger_.entries[current_];
  entry.count = {};
  save();
}

// --- what came out --------------------------------------------------------------------------------------------------

double SeriesBook::learning_rate_at(std::int64_t step) const {
  if (rates_.empty()) return rate_;
  auto after = rates_.upper_bound(step);  // the rate that was set last before it
  return step < 0 || after == rates_.begin() ? SeriesRow::kNotKnown : std::prev(after)->second;
}

void SeriesBook::write_file() {
  Series series;
  series.version = version_;
  series.curvature = to_string(config_.curvature.curvature);
  series.config = to_ini(config_);
  std::vector<const SeriesEntry*> done;
  for (const SeriesEntry& entry : ledger_.entries)
    if (entry.state == SeriesState::kDone) done.push_back(&entry);
  std::ranges::stable_sort(
      done, [&](const SeriesEntry* a, const SeriesEntry* b) { return comes_before(*a, *b, series_.order); });
  for (const SeriesEntry* entry : done) {
    SeriesRow row = rows_.at(entry->result);
    row.step = entry->step;
    row.name = entry->name;
    row.time = entry->time;
    row.sha256 = entry->sha256;
    row.result = entry->result;
    row.products = entry->products;
    row.fresh = entry->fresh;
    row.overlap = entry->overlap;
    row.learning_rate = learning_rate_at(entry->step);
    if (!series.rows.empty() && std::isfinite(row.trace.value)) {
      const SeriesRow& before = series.rows.back();
      row.change = trace_change({before.trace, before.samples}, {row.trace, row.samples});
    }
    series.rows.push_back(std::move(row));
  }
  write_series(config_.output.output, series);
}

int SeriesBook::exit_code() const {
  int code = static_cast<int>(ExitCode::kDone);
  for (const SeriesEntry& entry : ledger_.entries) {
    if (entry.state == SeriesState::kFailed || entry.state == SeriesState::kGone) return kFailedCode;
    if (entry.state == SeriesState::kDone && entry.exit_code != 0) code = static_cast<int>(ExitCode::kNotConverged);
  }
  return code;
}

std::string SeriesBook::summary() const {
  std::map<SeriesState, std::int64_t> counts;
  for (const SeriesEntry& entry : ledger_.entries) ++counts[entry.state];
  std::string text;
  for (const auto& [state, count] : counts)
    text += (text.empty() ? "" : ", ") + format_count(count) + " " +
            (state == SeriesState::kFound     ? "to be taken"
             : state == SeriesState::kRunning ? "under way"
                                              : to_string(state));
  return text.empty() ? "no checkpoint yet" : text;
}

}  // namespace hesspect
