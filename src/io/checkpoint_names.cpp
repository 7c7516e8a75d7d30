#include "checkpoint_names.h"

#include <algorithm>
#include <cstdio>
#include <regex>

#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"

namespace hesspect::checkpoint {
namespace {

namespace fs = std::filesystem;

const std::string kStem = R"((basis|running)-\d{6,}-\d{6,}\.rank-\d{4,}-of-\d{4,})";

std::string digits(std::int64_t number, int width) {
  char text[32];
  std::snprintf(text, sizeof text, "%0*lld", width, static_cast<long long>(number));
  return text;
}

/// The number of "PREFIX000007SUFFIX", where that is how it is written.
std::optional<std::int64_t> number_in(const std::string& name, const std::string& prefix, const std::string& suffix) {
  if (name.size() < prefix.size() + suffix.size() + 6 || !name.starts_with(prefix) || !name.ends_with(suffix))
    return std::nullopt;
  const std::string text = name.substr(prefix.size(), name.size() - prefix.size() - suffix.size());
  if (text.size() > 15 || text.find_first_not_of("0123456789") != std::string::npos) return std::nullopt;
  const std::int64_t number = std::stoll(text);
  return digits(number, 6) == text ? std::optional(number) : std::nullopt;
}

}  // namespace

std::string named(const fs::path& path) { return "'" + one_line(path.string()) + "'"; }

std::string run_name(std::int64_t generation) { return "run-" + digits(generation, 6) + ".json"; }
std::optional<std::int64_t> run_generation(const std::string& name) { return number_in(name, "run-", ".json"); }
std::string probe_name(std::int64_t probe) { return "probe-" + digits(probe, 6); }
std::optional<std::int64_t> probe_number(const std::string& name) { return number_in(name, "probe-", ""); }
std::string manifest_name(std::int64_t steps) { return "steps-" + digits(steps, 6) + ".json"; }
std::optional<std::int64_t> manifest_steps(const std::string& name) { return number_in(name, "steps-", ".json"); }

std::string piece_stem(const std::string& set, std::int64_t first_row, std::int64_t rows, int rank, int ranks) {
  return set + "-" + digits(first_row, 6) + "-" + digits(first_row + rows, 6) + ".rank-" + digits(rank, 4) + "-of-" +
         digits(ranks, 4);
}

bool is_piece(const std::string& name) {
  static const std::regex kPiece(kStem + R"(\.[0-9a-f]{16})");
  return std::regex_match(name, kPiece);
}

bool is_temporary(const std::string& name) {
  static const std::regex kTemporary(R"(\.(run-\d{6,}\.json|steps-\d{6,}\.json|)" + kStem + R"()\.tmp-\d+)");
  return std::regex_match(name, kTemporary);
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::error_code error;
  std::vector<std::string> names;
  fs::directory_iterator entry(folder, error);
  for (; !error && entry != fs::directory_iterator(); entry.increment(error))
    names.push_back(entry->path().filename().string());
  // Where a file stands in the way, whoever is to write there says so.
  if (error && error != std::errc::no_such_file_or_directory && error != std::errc::not_a_directory)
    throw InputError("the checkpoint folder " + named(folder) + " cannot be read: " + error.message());
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<std::int64_t> numbers_in(const fs::path& folder,
                                     std::optional<std::int64_t> (*number_of)(const std::string&)) {
  std::vector<std::int64_t> numbers;
  for (const auto& name : names_in(folder))
    if (const auto number = number_of(name)) numbers.push_back(*number);
  std::sort(numbers.begin(), numbers.end());  // names of more digits come too early
  return numbers;
}

}  // namespace hesspect::checkpoint
