#include "hesspect/watch/shown.h"

#include <chrono>
#include <utility>

#include "hesspect/core/errors.h"
#include "hesspect/core/log.h"

namespace hesspect {

Shown::Shown(const WatchConfig& config, std::filesystem::path page)
    : page_{std::move(page)}, file_{config.metrics_file} {
  if (config.metrics_port > 0)
    server_ = std::make_unique<MetricsServer>(metrics_, config.metrics_address, static_cast<int>(config.metrics_port));
}

void Shown::show(const SpoolView& view) {
  set_spool_metrics(metrics_, view);
  if (!page_.path.empty()) write(page_, spool_page(view));
  write_metrics();
}

void Shown::write_metrics() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  metrics_.set("hesspect_updated_seconds", {}, std::chrono::duration<double>(now).count());
  if (!file_.path.empty()) write(file_, metrics_.text());
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
