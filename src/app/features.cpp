#include "features.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <numeric>
#include <sstream>

#include "feature_counts.h"
#include "hesspect/comm/agree.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/log.h"
#include "hesspect/core/text.h"

namespace hesspect {
namespace {

constexpr std::uintmax_t kLargestFile = std::uintmax_t{256} << 20;

std::string text_of_file(const std::string& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) throw InputError("--features " + quote(path) + " is a directory");
  const std::uintmax_t bytes = std::filesystem::file_size(path, error);
  if (!error && bytes > kLargestFile)
    throw InputError("--features " + quote(path) + " of " + format_bytes(static_cast<std::int64_t>(bytes)) +
                     " is larger than any file of features");
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  if (in) text << in.rdbuf();
  if (!in) throw InputError("cannot read --features " + quote(path) + ": " + std::strerror(errno));
  return text.str();
}

std::vector<Feature> features_of(const FeaturesConfig& config, const ParameterLayout& layout,
                                 const std::vector<TableCounts>& counts) {
  std::vector<Feature> features = named_features(layout, config.named);
  std::vector<Feature> more;
  if (config.from == "auto") {
    more = automatic_features(layout, counts, config.buckets, config.rows);
    if (more.empty() && features.empty())
      throw InputError(
          "--features auto finds no table that is only looked up, by indices that the data tell: name features by "
          "--feature NAME=REGEX or in a file");
  } else if (!config.from.empty()) {
    more = features_in_json(layout, text_of_file(config.from), quote(config.from));
  }
  for (Feature& feature : more) {
    if (std::ranges::find(features, feature.name, &Feature::name) != features.end())
      throw UsageError("two features have the name " + quote(feature.name) + ": one of --feature, one of --features");
    features.push_back(std::move(feature));
  }
  return features;
}

/// Marks the features that share parameters with one of fewer. @param parts  of each
void mark_nested(const std::vector<Part>& parts, std::vector<FeatureResult>& features) {
  std::vector<std::size_t> order(parts.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, {}, [&](std::size_t i) { return parts[i].size(); });
  std::map<std::int64_t, std::int64_t> taken;  // begin -> end, apart from each other
  for (const std::size_t i : order) {
    const auto is_taken = [&](const IndexRange& range) {
      auto next = taken.lower_bound(range.begin);
      if (next != taken.end() && next->first < range.end) return true;
      return next != taken.begin() && std::prev(next)->second > range.begin;
    };
    features[i].nested = std::ranges::any_of(parts[i].ranges, is_taken);
    if (features[i].nested) continue;
    for (const IndexRange& range : parts[i].ranges) taken.emplace(range.begin, range.end);
  }
}

}  // namespace

void set_features_of(const RunConfig& config, const Problem& problem, Goals& goals, Communicator& world) {
  const ParameterLayout& layout = problem.program->layout();
  const std::vector<TableCounts> counts = count_look_ups(problem, world);
  const std::vector<Feature> features = agreed(world, [&] { return features_of(config.features, layout, counts); });
  const std::vector<FeatureFrequency> frequencies = count_features(problem, features, counts, world);
  std::vector<Part> parts;
  std::vector<FeatureResult> known;
  agree(world, [&] {
    for (std::size_t i = 0; i < features.size(); ++i) {
      const Feature& feature = features[i];
      parts.push_back(part_in_use(layout, feature, counts));
      FeatureResult& one = known.emplace_back();
      one.name = feature.name;
      one.kind = feature.kind;
      for (const FeaturePiece& piece : feature.pieces)
        if (std::ranges::find(one.tensors, piece.parameter) == one.tensors.end())
          one.tensors.push_back(piece.parameter);
      one.parameters = parameters_of(layout, feature);
      one.in_use = parts.back().size();
      one.look_ups = frequencies[i].look_ups;
      one.rows = frequencies[i].rows;
    }
    mark_nested(parts, known);
  });
  std::erase_if(parts, [](const Part& part) { return part.size() == 0; });
  log_info(format_count(std::ssize(features)) + (features.size() == 1 ? " feature, " : " features, ") +
           format_count(std::ssize(parts)) + " of them used by the data");
  set_features(goals, config, std::move(known), std::move(parts));
}

}  // namespace hesspect
