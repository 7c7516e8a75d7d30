// Features of a JSON text.
#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "feature_pieces.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/json_nesting.h"
#include "hesspect/core/text.h"

namespace hesspect {
namespace {

using nlohmann::json;
using What = FeaturePiece::What;
using Vocabulary = std::map<std::string, std::int64_t>;

constexpr std::int64_t kLargestIndex = 1'000'000'000'000'000;

/// Refuses keys that nobody reads, which are slips of the pen.
void require_keys(const std::string& where, const json& object, const std::vector<std::string>& known) {
  for (const auto& [key, value] : object.items())
    if (std::ranges::find(known, key) == known.end())
      throw InputError(where + ": unknown key " + quote(key) + did_you_mean(key, known) + "; there are " +
                       format_names(known));
}

std::string text_of(const std::string& where, const json& object, const std::string& key) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_string() || found->get_ref<const std::string&>().empty())
    throw InputError(where + ": " + quote(key) + " is to be a text");
  return found->get<std::string>();
}

std::int64_t json_index(const std::string& where, const json& value) {
  const bool is_index = value.is_number_unsigned() || (value.is_number_integer() && value.get<std::int64_t>() >= 0);
  if (!is_index || value.get<std::uint64_t>() > static_cast<std::uint64_t>(kLargestIndex))
    throw InputError(where + ": " + quote(value.dump()) + " is no index: from 0 on, or a text as \"10-19\"");
  return value.get<std::int64_t>();
}

/// "10-19" or "3"; nothing for another text.
std::optional<IndexRange> range_from(const std::string& text) {
  const auto number = [](const std::string& part) -> std::optional<std::int64_t> {
    const bool digits = !part.empty() && part.size() <= 15 && part.find_first_not_of("0123456789") == std::string::npos;
    return digits ? std::optional(std::stoll(part)) : std::nullopt;
  };
  const std::size_t dash = text.find('-');
  const auto first = number(text.substr(0, dash));
  const auto last = dash == std::string::npos ? first : number(text.substr(dash + 1));
  if (!first || !last || *last < *first) return std::nullopt;
  return IndexRange{*first, *last + 1};
}

class FeatureFile {
 public:
  FeatureFile(const ParameterLayout& layout, const std::string& text, std::string where)
      : layout_(layout), where_(std::move(where)) {
    if (json_nests_deeper(text)) throw InputError(where_ + " nests deeper than any file of features");
    document_ = json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (document_.is_discarded() || !(document_.is_array() || document_.is_object()))
      throw InputError(where_ +
                       " is not valid JSON of features: a list of {\"name\": …, \"parameter\": …}, or that as "
                       "\"features\" beside \"vocabularies\"");
  }

  std::vector<Feature> read() {
    const json* list = &document_;
    if (document_.is_object()) {
      require_keys(where_, document_, {"features", "vocabularies"});
      if (document_.contains("vocabularies")) read_vocabularies(document_["vocabularies"]);
      if (!document_.contains("features") || !document_["features"].is_array())
        throw InputError(where_ + ": \"features\" is to be a list");
      list = &document_["features"];
    }
    std::vector<Feature> features;
    for (const json& one : *list) {
      features.push_back(feature_from(one, features.size()));
      for (std::size_t i = 0; i + 1 < features.size(); ++i)
        if (features[i].name == features.back().name)
          throw InputError(where_ + " has two features of the name " + quote(features.back().name));
    }
    if (features.empty()) throw InputError(where_ + " has no features");
    return features;
  }

 private:
  void read_vocabularies(const json& all) {
    if (!all.is_object()) throw InputError(where_ + ": \"vocabularies\" is to be an object of lists by name");
    for (const auto& [name, words] : all.items()) {
      const std::string where = where_ + ": vocabulary " + quote(name);
      Vocabulary& vocabulary = vocabularies_[name];
      if (words.is_array()) {
        for (std::size_t i = 0; i < words.size(); ++i) {
          if (!words[i].is_string()) throw InputError(where + " is to hold texts");
          vocabulary.emplace(words[i].get<std::string>(), static_cast<std::int64_t>(i));
        }
      } else if (words.is_object()) {
        for (const auto& [word, id] : words.items()) vocabulary[word] = json_index(where, id);
      } else {
        throw InputError(where + " is to be a list of words, or an object of ids by word");
      }
    }
  }

  Feature feature_from(const json& one, std::size_t number) {
    const std::string place = where_ + ": feature " + std::to_string(number + 1);
    if (!one.is_object()) throw InputError(place + " is to be an object with \"name\" and \"parameter\"");
    Feature feature{text_of(place, one, "name"), "", {}};
    const std::string where = where_ + ": feature " + quote(feature.name);
    if (one.contains("parts")) {
      require_keys(where, one, {"name", "parts"});
      if (!one["parts"].is_array() || one["parts"].empty())
        throw InputError(where + ": \"parts\" is to be a list of {\"parameter\": …}");
      for (const json& part : one["parts"]) {
        if (!part.is_object()) throw InputError(where + ": \"parts\" is to be a list of {\"parameter\": …}");
        require_keys(where, part, {"parameter", "rows", "columns", "vocabulary"});
        add_pieces(where, part, feature);
      }
    } else {
      require_keys(where, one, {"name", "parameter", "rows", "columns", "vocabulary", "parts"});
      add_pieces(where, one, feature);
    }
    settle_kind(feature);
    return feature;
  }

  void add_pieces(const std::string& where, const json& part, Feature& feature) {
    const std::string pattern = text_of(where, part, "parameter");
    std::vector<bool> chosen;
    try {
      chosen = matching(layout_, "parameter", {pattern});
    } catch (const Error& error) {
      throw InputError(where + ": " + std::string(error.what()).substr(2));  // "--parameter …"
    }
    const bool rows = part.contains("rows"), columns = part.contains("columns");
    if (rows && columns) throw InputError(where + " has \"rows\" and \"columns\": give one of them, or two \"parts\"");
    FeaturePiece piece;
    if (rows || columns) {
      piece.what = rows ? What::kRows : What::kColumns;
      piece.indices = indices_from(where, part, rows ? "rows" : "columns");
    } else if (part.contains("vocabulary")) {
      throw InputError(where + " has a \"vocabulary\" and no \"rows\" or \"columns\" that name words of it");
    }
    for (std::size_t i = 0; i < chosen.size(); ++i) {
      if (!chosen[i]) continue;
      const ParameterEntry& entry = layout_.entries()[i];
      piece.parameter = entry.name;
      require_indices(where, entry, piece);
      feature.pieces.push_back(piece);
    }
  }

  std::vector<IndexRange> indices_from(const std::string& where, const json& part, const std::string& key) {
    const Vocabulary* vocabulary = nullptr;
    std::string vocabulary_name;
    if (part.contains("vocabulary")) {
      vocabulary_name = text_of(where, part, "vocabulary");
      const auto found = vocabularies_.find(vocabulary_name);
      std::vector<std::string> names;
      for (const auto& [name, words] : vocabularies_) names.push_back(name);
      if (found == vocabularies_.end())
        throw InputError(where + ": unknown vocabulary " + quote(vocabulary_name) +
                         did_you_mean(vocabulary_name, names) + "; the file has " +
                         (names.empty() ? "none" : format_names(names)));
      vocabulary = &found->second;
    }
    const json& list = part[key];
    if (!list.is_array() || list.empty())
      throw InputError(where + ": " + quote(key) + " is to be a list of indices, ranges \"10-19\" or words");
    std::vector<IndexRange> indices;
    std::vector<std::string> unknown;
    for (const json& one : list) {
      if (!one.is_string()) {
        const std::int64_t index = json_index(where, one);
        indices.push_back({index, index + 1});
        continue;
      }
      const std::string word = one.get<std::string>();
      const auto found = vocabulary == nullptr ? Vocabulary::const_iterator() : vocabulary->find(word);
      if (vocabulary != nullptr && found != vocabulary->end())
        indices.push_back({found->second, found->second + 1});
      else if (const auto range = range_from(word))
        indices.push_back(*range);
      else
        unknown.push_back(word);
    }
    if (!unknown.empty()) throw InputError(where + unknown_words(unknown, vocabulary, vocabulary_name));
    return merged(std::move(indices));
  }

  static std::string unknown_words(const std::vector<std::string>& unknown, const Vocabulary* vocabulary,
                                   const std::string& name) {
    std::vector<std::string> words, listed;
    if (vocabulary == nullptr)
      return ": " + quote(unknown.front()) + " is no index, and no \"vocabulary\" is named that could hold it";
    for (const auto& [word, id] : *vocabulary) words.push_back(word);
    for (const std::string& word : unknown) listed.push_back(quote(word) + did_you_mean(word, words));
    return ": vocabulary " + quote(name) + " of " + format_count(std::ssize(words)) + " words has no " +
           format_names(listed);
  }

  const ParameterLayout& layout_;
  const std::string where_;
  json document_;
  std::map<std::string, Vocabulary> vocabularies_;
};

}  // namespace

std::vector<Feature> features_in_json(const ParameterLayout& layout, const std::string& text,
                                      const std::string& where) {
  return FeatureFile(layout, text, where).read();
}

}  // namespace hesspect
