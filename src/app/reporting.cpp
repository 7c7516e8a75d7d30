#include "reporting.h"

#include <span>

#include "hesspect/comm/agree.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/hdf5_trial.h"
#include "hesspect/core/log.h"
#include "hesspect/core/text.h"
#include "hesspect/io/atomic_file.h"
#include "hesspect/io/result_file.h"
#include "hesspect/report/compare.h"
#include "hesspect/report/report.h"

namespace hesspect {
namespace {

std::vector<NamedResult> read_results(const std::vector<std::string>& files) {
  std::vector<NamedResult> results;
  for (const std::string& file : files) {
    try_hdf5_file(file);
    results.push_back({file, read_result(file)});
  }
  return results;
}

std::string written(const Invocation& run) {
  const ReportConfig& config = run.config.report;
  const FigureOptions options{config.momentum, config.damping};
  if (run.command == Command::kCompare && run.files.size() < 2)
    compare({{run.files.front(), {}}}, options);  // says why
  const std::vector<NamedResult> results = read_results(run.files);
  if (run.command == Command::kCompare) {
    const Comparison comparison = compare(results, options, run.config.output.force);
    return config.format == ReportFormat::kJson ? comparison_json(comparison) : comparison_text(comparison);
  }
  switch (config.format) {
    case ReportFormat::kJson: return report_json(results, options);
    case ReportFormat::kHtml: return report_html(results, options);
    case ReportFormat::kText: break;
  }
  return report_text(results, options);
}

}  // namespace

std::string report_command(const Invocation& run, Communicator& host) {
  const OutputConfig& output = run.config.output;
  std::string text;
  agree(host, [&] {
    if (host.rank() != 0) return;
    if (!output.output.empty()) check_output(output.output, output.force);
    text = written(run);
    if (output.output.empty()) return;
    write_file_atomically(output.output, std::as_bytes(std::span(text)));
    log_info(to_string(run.command) + " of " + format_names(run.files) + " in " + quote(output.output));
    text.clear();
  });
  return text;
}

}  // namespace hesspect
