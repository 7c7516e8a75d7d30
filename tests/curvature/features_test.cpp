// Which entries of the flat vector a feature is, as options, files and frequencies name it.
#include "hesspect/curvature/features.h"

#include <gtest/gtest.h>

#include "core/input_error.h"
#include "hesspect/core/errors.h"
#include "hesspect/model/parameter_layout.h"

namespace hesspect::features_test {
namespace {

using Numbers = std::vector<std::int64_t>;

ParameterEntry entry(const std::string& name, Numbers shape) {
  std::int64_t numel = 1;
  for (const std::int64_t size : shape) numel *= size;
  ParameterEntry e;
  e.name = name;
  e.shape = std::move(shape);
  e.stored_dtype = at::kDouble;
  e.numel = numel;
  return e;
}

/// film [4 of 10, 3] at 0, head [2, 5] at 12, bias [2] at 22.
ParameterLayout layout() {
  ParameterLayout all;
  ParameterEntry film = entry("film.weight", {4, 3});
  film.rows = std::make_shared<const Numbers>(Numbers{1, 4, 5, 8});
  film.model_shape = {10, 3};
  film.model_numel = 30;
  all.add(film);
  all.add(entry("head.weight", {2, 5}));
  all.add(entry("head.bias", {2}));
  return all;
}

const std::vector<TableCounts> kCounts{{"film.weight", {1, 4, 5, 8}, {7, 1, 1, 20}}};

Numbers entries(const Part& part) {
  Numbers all;
  for (const IndexRange& range : part.ranges)
    for (std::int64_t i = range.begin; i < range.end; ++i) all.push_back(i);
  return all;
}

Part part(const Feature& feature) { return part_in_use(layout(), feature, kCounts); }

std::string error_of(const std::string& json) {
  return test::input_error([&] { features_in_json(layout(), json, "'f.json'"); });
}

TEST(Features, ByOption) {
  const auto all = named_features(layout(), {{"some", "film@rows=0-4,8"},
                                             {"columns", "head.weight@columns=1,3-4"},
                                             {"embedding column", "film@columns=2"},
                                             {"some", "bias"},
                                             {"film", "film"},
                                             {"unused", "film@rows=0,2-3"}});
  ASSERT_EQ(all.size(), 5u);
  EXPECT_EQ(all[0].name, "some");
  EXPECT_EQ(all[0].kind, "group");
  EXPECT_EQ(entries(part(all[0])), (Numbers{0, 1, 2, 3, 4, 5, 9, 10, 11, 22, 23}));
  EXPECT_EQ(parameters_of(layout(), all[0]), 6 * 3 + 2);
  EXPECT_EQ(all[1].kind, "columns");
  EXPECT_EQ(entries(part(all[1])), (Numbers{13, 15, 16, 18, 20, 21}));
  EXPECT_EQ(parameters_of(layout(), all[1]), 6);
  EXPECT_EQ(entries(part(all[2])), (Numbers{2, 5, 8, 11}));
  EXPECT_EQ(parameters_of(layout(), all[2]), 10);
  EXPECT_EQ(part(all[3]).size(), 12);
  EXPECT_EQ(parameters_of(layout(), all[3]), 30);
  EXPECT_EQ(part(all[4]).size(), 0);
  EXPECT_EQ(parameters_of(layout(), all[4]), 9);
  const auto refused = [&](const std::string& pattern) {
    return test::input_error([&] { named_features(layout(), {{"f", pattern}}); });
  };
  EXPECT_NE(refused("film@rows=9-12").find("of shape [10, 3] has no rows 10, 11, 12: they are numbered 0 to 9"),
            std::string::npos);
  EXPECT_NE(refused("bias@columns=0").find("has no columns 0"), std::string::npos);
  EXPECT_NE(refused("flim").find("matches none of the model's 3 parameters"), std::string::npos);
}

/// Blocks are chosen in the model's own rows, of which vectors hold some.
TEST(Parts, OfTablesThatHoldSomeRows) {
  const ParameterLayout all = layout();
  const std::vector<Part> parts = named_parts(all, {{"films", "film"},
                                                    {"some", "film@rows=0-4"},
                                                    {"none", "film@rows=2-3"},
                                                    {"columns", "film@columns=0-1"},
                                                    {"some", "bias"}});
  ASSERT_EQ(parts.size(), 4u);
  EXPECT_EQ(parts[0].size(), 12);
  EXPECT_EQ(parts[0].zeros(), 18);
  EXPECT_EQ(entries(parts[1]), (Numbers{0, 1, 2, 3, 4, 5, 22, 23}));  // rows 1 and 4
  EXPECT_EQ(parts[1].zeros(), 9);                                     // rows 0, 2 and 3
  EXPECT_EQ(parts[1].tensors, (std::vector<std::string>{"film.weight", "head.bias"}));
  EXPECT_EQ(parts[2].size(), 0);
  EXPECT_EQ(parts[2].zeros(), 6);
  EXPECT_EQ(parts[2].tensors, (std::vector<std::string>{"film.weight"}));
  EXPECT_EQ(entries(parts[3]), (Numbers{0, 1, 3, 4, 6, 7, 9, 10}));
  EXPECT_EQ(parts[3].zeros(), 12);

  // Random numbers are by the model's own, whatever is left out: row 1 begins with parameter 3, bias with 40.
  Numbers numbers;
  parts[1].numbers->for_each(0, parts[1].size(), [&](std::int64_t, std::int64_t number, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) numbers.push_back(number + i);
  });
  EXPECT_EQ(numbers, (Numbers{3, 4, 5, 12, 13, 14, 40, 41}));

  // What is in none, and in two, counts rows that vectors don't hold too.
  std::string overlap;
  EXPECT_EQ(count_outside(all, {parts[1]}, overlap), 42 - 17);
  EXPECT_EQ(overlap, "");
  EXPECT_EQ(count_outside(all, {parts[1], parts[2]}, overlap), 42 - 17);
  EXPECT_EQ(overlap, "film.weight");
  EXPECT_EQ(count_outside(all, grouped_parts(all, ParameterGrouping::kTensor), overlap), 0);
  EXPECT_EQ(overlap, "");
  EXPECT_NE(test::input_error([&] {
              named_parts(all, {{"a", "film@rows=10"}});
            }).find("of shape [10, 3] has no rows 10"),
            std::string::npos);
}

TEST(Features, ByFile) {
  const auto all = features_in_json(layout(), R"({"vocabularies": {"films": ["a", "b", "c", "d", "e"], "ids": {"x": 8}},
    "features": [{"name": "two", "parameter": "film", "rows": ["b", "e"], "vocabulary": "films"},
                 {"name": "by id", "parameter": "film", "rows": ["x", 1, "4-5"], "vocabulary": "ids"},
                 {"name": "both", "parts": [{"parameter": "bias"}, {"parameter": "^head.weight", "columns": [0]},
                                            {"parameter": "bias"}]}]})",
                                    "'f.json'");
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all[0].kind, "rows");
  EXPECT_EQ(entries(part(all[0])), (Numbers{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(part(all[1]).size(), 12);
  EXPECT_EQ(entries(part(all[2])), (Numbers{12, 17, 22, 23}));
  EXPECT_EQ(parameters_of(layout(), all[2]), 4);
  EXPECT_EQ(features_in_json(layout(), R"([{"name": "f", "parameter": "film"}])", "").size(), 1u);
}

/// Each says what is wrong, where, and what is near.
TEST(Features, FilesThatAreRefused) {
  const auto says = [](const std::string& json, const std::string& what) {
    const std::string error = error_of(json);
    EXPECT_NE(error.find(what), std::string::npos) << json << "\n" << error;
    EXPECT_EQ(error.find('\n'), std::string::npos);
  };
  const std::string words = R"({"vocabularies": {"films": ["Alien", "Brazil"]}, "features": [)";
  says("[", "is not valid JSON of features");
  says("3", "is not valid JSON of features");
  says("[]", "has no features");
  says(std::string(2000, '[') + std::string(2000, ']'), "nests deeper");
  says(R"({"feature": []})", "unknown key 'feature' (did you mean 'features'?)");
  says(R"([{"parameter": "film"}])", "feature 1: 'name' is to be a text");
  says(R"([{"name": "f", "parameter": "flim"}])", "feature 'f': parameter 'flim' matches none of the model's");
  says(R"([{"name": "f", "parameter": "("}])", "is no regular expression");
  says(R"([{"name": "f", "parameter": "film", "row": [1]}])", "unknown key 'row' (did you mean 'rows'?)");
  says(R"([{"name": "f", "parameter": "film", "rows": [1.5]}])", "'1.5' is no index");
  says(R"([{"name": "f", "parameter": "film", "rows": [-1]}])", "'-1' is no index");
  says(R"([{"name": "f", "parameter": "film", "rows": []}])", "'rows' is to be a list");
  says(R"([{"name": "f", "parameter": "film", "rows": [3, 10, "12-90000000000"]}])",
       "has no rows 10, 12, 13, 14, 15, …");
  says(R"([{"name": "f", "parameter": "film", "rows": ["Alien"]}])", "no \"vocabulary\" is named");
  says(words + R"({"name": "f", "parameter": "film", "rows": ["Alien", "Brasil", "Q"], "vocabulary": "films"}]})",
       "vocabulary 'films' of 2 words has no 'Brasil' (did you mean 'Brazil'?), 'Q'");
  says(words + R"({"name": "f", "parameter": "film", "rows": ["Alien"], "vocabulary": "film"}]})",
       "unknown vocabulary 'film' (did you mean 'films'?)");
  says(words + R"({"name": "f", "parameter": "film", "vocabulary": "films"}]})", "no \"rows\" or \"columns\"");
  says(R"([{"name": "f", "parameter": "film"}, {"name": "f", "parameter": "bias"}])", "two features of the name 'f'");
  says(R"([{"name": "f", "parameter": "film", "rows": [1], "columns": [1]}])", "has \"rows\" and \"columns\"");
}

TEST(Features, Automatic) {
  const auto names = [](const std::vector<Feature>& features) {
    std::vector<std::string> all;
    for (const Feature& feature : features) all.push_back(feature.name);
    return all;
  };
  using Names = std::vector<std::string>;
  const auto all = automatic_features(layout(), kCounts, 3, 2);
  // Two rows are looked up once each: they stay together.
  EXPECT_EQ(names(all), (Names{"film.weight", "film.weight@bucket=1of3", "film.weight@bucket=2of3",
                               "film.weight@bucket=3of3", "film.weight@rows=8", "film.weight@rows=4"}));
  EXPECT_EQ(entries(part(all[1])), (Numbers{3, 4, 5, 6, 7, 8}));
  EXPECT_EQ(entries(part(all[2])), (Numbers{0, 1, 2}));
  EXPECT_EQ(entries(part(all[3])), (Numbers{9, 10, 11}));
  EXPECT_EQ(all[4].kind, "row");
  EXPECT_EQ(entries(part(all[4])), (Numbers{9, 10, 11}));
  EXPECT_EQ(automatic_features(layout(), kCounts, 0, 100).size(), 5u);
  EXPECT_TRUE(automatic_features(layout(), {}, 3, 3).empty());
}

}  // namespace
}  // namespace hesspect::features_test
