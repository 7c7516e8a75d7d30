// Programs whose texts claim what cannot be: each claim here once overflowed, ran off the stack or took all memory.
// Found by tests/fuzz/program_fuzz.cpp, or read from the sources before it.
#include <gtest/gtest.h>

#include "core/input_error.h"
#include "core/temporary_folder.h"
#include "core/zip_writer.h"
#include "hesspect/core/zip_archive.h"
#include "hesspect/model/program.h"

namespace hesspect::broken_program_test {
namespace {

constexpr const char* kModel = "models/model.json";
constexpr const char* kWeights = "data/weights/model_weights_config.json";

/// The program of linear regression, one weight of shape [1, 8], with one of its texts changed.
class BrokenProgram : public ::testing::Test {
 protected:
  /// Each first `from` in the record becomes `to`. @return the file's path
  std::filesystem::path changed(const std::string& record,
                                const std::vector<std::pair<std::string, std::string>>& changes) {
    const std::string folder =
        std::getenv("HESSPECT_FIXTURES") != nullptr ? std::getenv("HESSPECT_FIXTURES") : "fixtures";
    const ZipArchive archive(folder + "/linreg.pt2");
    std::vector<std::pair<std::string, std::string>> files;
    for (const ZipEntry& entry : archive.entries()) {
      std::string content(reinterpret_cast<const char*>(entry.data.data()), entry.data.size());
      if (entry.name == archive.root() + "/" + record)
        for (const auto& [from, to] : changes) {
          const std::size_t at = content.find(from);
          EXPECT_NE(at, std::string::npos) << from;
          content.replace(at, from.size(), to);
        }
      files.emplace_back(entry.name, content);
    }
    return folder_.write("broken.pt2", test::zip_of(files, false));
  }

  /// The message that loading ends in.
  std::string refusal(const std::string& record, const std::vector<std::pair<std::string, std::string>>& changes) {
    const auto path = changed(record, changes);
    return test::input_error([&] { Program::load(path, {}); });
  }

  test::TemporaryFolder folder_;
};

TEST_F(BrokenProgram, TextsThatNestForEver) {
  EXPECT_CONTAINS(refusal(kModel, {{"\"metadata\": {}", "\"metadata\": " + std::string(200000, '[')}}), "nests deeper");
  EXPECT_CONTAINS(refusal(kWeights, {{"{\"config\"", std::string(200000, '[')}}), "nests deeper");
}

/// The names of outputs stand as JSON within a text of the JSON; they are a convenience.
TEST_F(BrokenProgram, TextsWithinTextsThatNestForEver) {
  const std::string deep = std::string(200000, '[') + std::string(200000, ']');
  const auto path =
      changed(kModel, {{R"("out_spec": "[1, {\"type\": null)", R"("out_spec": "[1, {\"type\": )" + deep}});
  EXPECT_EQ(Program::load(path, {}).outputs().size(), 1U);
}

TEST_F(BrokenProgram, SizesWhoseProductOverflows) {
  const std::string huge = "{\"as_int\": 4611686018427387904}";
  EXPECT_CONTAINS(refusal(kWeights, {{"{\"as_int\": 1}, {\"as_int\": 8}", huge + ", " + huge},
                                     {"{\"as_int\": 8}, {\"as_int\": 1}]", "{\"as_int\": 0}, {\"as_int\": 0}]"}}),
                  "is larger than any memory");
  EXPECT_CONTAINS(refusal(kWeights, {{"{\"as_int\": 8}", "{\"as_int\": -8}"}}), "has a negative size");
}

/// Strides of 0 make much of little: four bytes became gigabytes.
TEST_F(BrokenProgram, FewElementsRepeatedManyTimes) {
  EXPECT_CONTAINS(refusal(kWeights, {{"{\"as_int\": 1}, {\"as_int\": 8}", "{\"as_int\": 100000}, {\"as_int\": 100000}"},
                                     {"{\"as_int\": 8}, {\"as_int\": 1}]", "{\"as_int\": 0}, {\"as_int\": 0}]"}}),
                  "more than ten times the file");
}

TEST_F(BrokenProgram, NumbersThatAreNoIntegersOf64Bits) {
  for (const char* number : {"1e300", "18446744073709551615", "99999999999999999999999", "1.5", "true"}) {
    EXPECT_CONTAINS(refusal(kWeights, {{"\"dtype\": 7", std::string("\"dtype\": ") + number}}), "a broken integer");
    EXPECT_CONTAINS(
        refusal(kModel,
                {{"\"tensor_values\": {\"p_weight\": {\"dtype\": 7, \"sizes\": [{\"as_int\": 1}, {\"as_int\": 8}]",
                  "\"tensor_values\": {\"p_weight\": {\"dtype\": 7, \"sizes\": []"},
                 {"\"input\": {\"dtype\": 7", std::string("\"input\": {\"dtype\": ") + number}}),
        "value 'input': has a broken integer");
  }
}

/// Types that only say whether a value is continuous were cast from whatever stood there.
TEST_F(BrokenProgram, TypesOfValuesBetweenThatAreNone) {
  const auto path = changed(kModel, {{R"("p_weight": {"dtype": 7)", R"("p_weight": {"dtype": -1e300)"}});
  EXPECT_EQ(Program::load(path, {}).outputs().size(), 1U);
}

/// A name of the file could end the line, or steer the terminal that the message is printed on.
TEST_F(BrokenProgram, NamesThatAreNoNames) {
  const std::string message = refusal(kModel, {{"torch.ops.aten.linear.default", "torch.ops.aten.li\\near.default"},
                                               {"null, \"name\": \"linear\"", "null, \"name\": \"a\\n\\u001b[2J\""}});
  EXPECT_CONTAINS(message, "node 'a\\n\\x1b[2J' (aten.li\\near.default");
}

/// What is no pair of a kind and its content was read after its end.
TEST_F(BrokenProgram, OutputsThatAreNothing) {
  for (const char* output : {"{}", "[]", "null", "7", "[[]]"})
    EXPECT_CONTAINS(
        refusal(kModel, {{"{\"user_output\": {\"arg\": {\"as_tensor\": {\"name\": \"linear\"}}}}", output}}),
        "its graph is broken");
}

}  // namespace
}  // namespace hesspect::broken_program_test
