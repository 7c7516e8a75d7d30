#include "hesspect/core/log.h"

#include <fmt/format.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <ctime>
#include <mutex>

#include "hesspect/core/log_file.h"
#include "hesspect/core/product_count.h"
#include "hesspect/core/text.h"
#include "hesspect/core/timer.h"

namespace hesspect {
namespace {

constexpr double kRedrawEvery_s = 0.1;
constexpr double kLineEvery_s = 30;
constexpr std::string_view kClearLine = "\r\033[K";

/// The one piece of process-wide state: where this process's messages go, and whether a bar is on the last line.
struct Console {
  spdlog::logger logger{"hesspect", std::make_shared<spdlog::sinks::stderr_sink_mt>()};
  std::atomic<bool> bar_shown{false};
  std::mutex file_mutex;
  std::FILE* file = nullptr;  // in the place of stderr; under file_mutex

  Console() {
    logger.set_pattern("hesspect: %v");
    logger.set_level(spdlog::level::info);
    logger.flush_on(spdlog::level::trace);
  }

  void print(spdlog::level::level_enum level, std::string_view prefix, std::string_view message) {
    if (!logger.should_log(level)) return;
    if (has_file()) {
      print_to_file(prefix, message);
      return;
    }
    clear_bar();
    logger.log(level, "{}{}", prefix, one_line(message));
  }
  bool has_file() {
    const std::lock_guard<std::mutex> lock(file_mutex);
    return file != nullptr;
  }
  void print_to_file(std::string_view prefix, std::string_view message) {
    const std::time_t now = std::time(nullptr);
    std::tm fields{};
    gmtime_r(&now, &fields);
    char time[32];
    std::strftime(time, sizeof time, "%Y-%m-%dT%H:%M:%SZ", &fields);
    const std::string line = fmt::format("{} {}{}\n", time, prefix, one_line(message));
    const std::lock_guard<std::mutex> lock(file_mutex);
    if (file == nullptr) return;
    std::fwrite(line.data(), 1, line.size(), file);
    std::fflush(file);
  }
  void clear_bar() {
    if (bar_shown.exchange(false)) write(kClearLine);
  }
  static void write(std::string_view text) {
    std::fwrite(text.data(), 1, text.size(), stderr);
    std::fflush(stderr);
  }
};

Console& console() {
  static Console instance;
  return instance;
}

}  // namespace

void set_log_level(LogLevel level) {
  constexpr spdlog::level::level_enum kLevels[] = {spdlog::level::err, spdlog::level::info, spdlog::level::debug};
  console().logger.set_level(kLevels[static_cast<std::size_t>(level)]);  // as LogLevel has them
}

void log_info(std::string_view message) { console().print(spdlog::level::info, "", message); }
void log_debug(std::string_view message) { console().print(spdlog::level::debug, "debug: ", message); }
void log_warning(std::string_view message) { console().print(spdlog::level::warn, "warning: ", message); }
void log_error(std::string_view message) { console().print(spdlog::level::err, "error: ", message); }

LogFile::LogFile(const std::filesystem::path& file) {
  std::FILE* const opened = std::fopen(file.c_str(), "ae");
  const std::lock_guard<std::mutex> lock(console().file_mutex);
  console().file = opened;
}

LogFile::~LogFile() {
  const std::lock_guard<std::mutex> lock(console().file_mutex);
  if (console().file != nullptr) std::fclose(console().file);
  console().file = nullptr;
}

std::string format_progress(std::string_view label, std::int64_t done, std::int64_t least, std::int64_t most,
                            double elapsed_s, std::int64_t before) {
  const bool exact = least == most, at_most = !exact && least <= done;
  std::string text(label);
  if (most <= 0)
    text += fmt::format(": {} products", done);
  else if (exact)
    text += fmt::format(": {}/{} products, {}%", done, most, 100 * std::min(done, most) / most);
  else if (at_most)
    text += fmt::format(": {} of at most {} products", done, most);
  else
    text += fmt::format(": {} of {} to {} products", done, least, most);
  if (done <= before || elapsed_s <= 0) return text;
  const double rate = static_cast<double>(done - before) / elapsed_s;
  text += rate >= 1 ? fmt::format(", {:.1f}/s", rate) : fmt::format(", {} each", format_duration(1 / rate));
  if (most <= 0) return text;
  const auto left = [&](std::int64_t total) {
    return format_duration(static_cast<double>(std::max<std::int64_t>(0, total - done)) / rate);
  };
  return text + (exact ? ", " : at_most ? ", at most " : ", " + left(least) + " to ") + left(most) + " left";
}

struct Progress::Impl {
  std::string label;
  std::int64_t least = 0, most = 0;
  std::int64_t before = 0;
  std::int64_t done = 0;
  std::int64_t counted = 0;  // of done and before, in count_products
  bool on_terminal = false;
  bool finished = false;
  Timer since_start;
  Timer since_shown;
  bool shown = false;

  bool silent() const { return !console().logger.should_log(spdlog::level::info); }

  void draw_bar() {
    constexpr std::int64_t kWidth = 24;
    std::string bar;
    if (most > 0) {
      const std::int64_t filled = kWidth * std::clamp<std::int64_t>(done, 0, most) / most;
      bar = "[" + std::string(static_cast<std::size_t>(filled), '#') +
            std::string(static_cast<std::size_t>(kWidth - filled), '.') + "] ";
    }
    console().bar_shown = true;
    Console::write(std::string(kClearLine) + bar +
                   format_progress(label, done, least, most, since_start.elapsed_s(), before));
  }

  void show() {
    if (silent()) return;
    if (on_terminal) {
      if (shown && since_shown.elapsed_s() < kRedrawEvery_s) return;
      draw_bar();
    } else {
      if (since_shown.elapsed_s() < kLineEvery_s) return;
      log_info(format_progress(label, done, least, most, since_start.elapsed_s(), before));
    }
    shown = true;
    since_shown.reset();
  }
};

Progress::Progress(std::string label, std::int64_t before) : impl_(std::make_unique<Impl>()) {
  impl_->label = one_line(label);
  impl_->before = before;
  impl_->counted = before;
  impl_->on_terminal = ::isatty(STDERR_FILENO) == 1 && !console().has_file();
}

Progress::~Progress() {
  // Left by an exception: say nothing more, but leave the terminal's line clean.
  if (!impl_->finished) console().clear_bar();
}

void Progress::set_expected(std::int64_t least, std::int64_t most) {
  impl_->least = least;
  impl_->most = most;
}

void Progress::update(std::int64_t done) {
  impl_->done = done;
  count_products(std::max<std::int64_t>(0, done - impl_->counted));
  impl_->counted = std::max(impl_->counted, done);
  if (!impl_->finished) impl_->show();
}

void Progress::finish() {
  if (impl_->finished) return;
  impl_->finished = true;
  console().clear_bar();
  log_info(
      fmt::format("{}: {} products in {}", impl_->label, impl_->done, format_duration(impl_->since_start.elapsed_s())));
}

}  // namespace hesspect
