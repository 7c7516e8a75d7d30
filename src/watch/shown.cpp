#include "hesspect/watch/shown.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <csignal>
#include <utility>

#include "hesspect/core/errors.h"
#include "hesspect/core/log.h"
#include "hesspect/core/memory.h"
#include "hesspect/core/product_count.h"

namespace hesspect {
namespace {

using Seconds = std::chrono::duration<double>;

double seconds_since_1970() { return Seconds(std::chrono::system_clock::now().time_since_epoch()).count(); }

/// The job at work is this process's, as far as it is alone: what has been counted since the view was made is its.
void add_progress(SpoolView& view, std::int64_t products, double rate) {
  JobView* at_work = nullptr;
  for (JobView& job : view.jobs) {
    if (job.state != JobView::State::kRunning) continue;
    if (at_work != nullptr) return;  // several services: whose products these are is not known
    at_work = &job;
  }
  if (at_work == nullptr) return;
  at_work->products = std::max(at_work->products, products);
  if (!std::isfinite(at_work->products_per_s)) at_work->products_per_s = rate;
}

}  // namespace

Shown::Shown(const WatchConfig& config, std::filesystem::path page, double every_s)
    : page_{std::move(page)},
      file_{config.metrics_file},
      every_s_(every_s),
      counted_(products_counted()),
      counted_at_start_(counted_),
      counted_at_change_(counted_) {
  measure();
  if (config.metrics_port > 0)
    server_ = std::make_unique<MetricsServer>(metrics_, config.metrics_address, static_cast<int>(config.metrics_port));
  if (page_.path.empty() && file_.path.empty() && !server_) return;
  // The process's signals belong to its main thread, which sleeps in calls that they must interrupt.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { keep_up(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Shown::~Shown() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    ends_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void Shown::show(SpoolView view) {
  {
    const std::lock_guard lock(mutex_);
    view_ = std::move(view);
    has_view_ = is_new_ = true;
    counted_at_change_ = products_counted();
  }
  wake_.notify_all();
}

void Shown::keep_up() {
  std::unique_lock lock(mutex_);
  for (;;) {
    const bool ends = ends_;
    is_new_ = false;
    SpoolView view = view_;
    const bool has_view = has_view_;
    const std::int64_t since = products_counted() - counted_at_change_;
    lock.unlock();
    measure();
    if (has_view) {
      view.now = seconds_since_1970();
      add_progress(view, since, rate_);
      set_spool_metrics(metrics_, view);
      if (!page_.path.empty()) write(page_, spool_page(view));
    }
    if (!file_.path.empty()) write(file_, metrics_.text());
    if (ends) return;
    lock.lock();
    wake_.wait_for(lock, Seconds(every_s_), [&] { return is_new_ || ends_; });
  }
}

void Shown::measure() {
  const double now = seconds_since_1970();
  const std::int64_t counted = products_counted();
  if (counted > counted_ && measured_at_ > 0)
    rate_ = static_cast<double>(counted - counted_) / std::max(now - measured_at_, 1e-3);
  else if (now - measured_at_ > 4 * every_s_)
    rate_ = JobView::kUnknown;  // none for a while
  if (counted != counted_ || measured_at_ == 0) {
    counted_ = counted;
    measured_at_ = now;
  }
  metrics_.set("hesspect_products_total", {}, static_cast<double>(counted - counted_at_start_));
  metrics_.set("hesspect_products_per_second", {}, rate_);
  metrics_.set("hesspect_resident_bytes", {{"rank", "0"}}, static_cast<double>(resident_memory_bytes()));
  metrics_.set("hesspect_updated_seconds", {}, now);
}

void Shown::write(Target& target, const std::string& text) {
  try {
    write_text_file(target.path, text);
    target.failing = false;
  } catch (const InputError& error) {
    if (!std::exchange(target.failing, true)) log_warning(std::string(error.what()) + "; the run goes on without it");
  }
}

}  // namespace hesspect
