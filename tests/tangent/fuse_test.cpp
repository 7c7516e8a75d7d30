// Norms, GELUs and masked softmaxes that models write out are taken by one rule each. That the products are then right
// is curvature.tangent_test's, which has these models too.
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <string>

#include "hesspect/model/program.h"
#include "hesspect/tangent/tangent_program.h"

namespace hesspect::fuse_test {
namespace {

/// How often which op is differentiated, in the program of a fixture.
std::map<std::string, std::int64_t> counts_of(const std::string& name) {
  const char* folder = std::getenv("HESSPECT_FIXTURES");
  const Program program = Program::load(std::string(folder != nullptr ? folder : "fixtures") + "/" + name + ".pt2",
                                        {at::kDouble, at::kCPU});
  const TangentProgram tangent(program, {0});
  std::map<std::string, std::int64_t> counts;
  for (const RuleCount& rule : tangent.rules())
    if (rule.own) counts[rule.op] = rule.count;
  return counts;
}

TEST(Fuse, RmsNormOfLlama) {
  const auto counts = counts_of("llama");
  ASSERT_TRUE(counts.contains("rms_norm, written out"));
  EXPECT_EQ(counts.at("rms_norm, written out"), 5);  // two of each of two layers, and the last
  for (const char* part : {"aten.pow.Tensor_Scalar", "aten.mean.dim", "aten.rsqrt.default"})
    EXPECT_FALSE(counts.contains(part)) << part;
}

TEST(Fuse, GeluOfGpt2) {
  const auto counts = counts_of("gpt2");
  ASSERT_TRUE(counts.contains("gelu, written out"));
  EXPECT_EQ(counts.at("gelu, written out"), 2);
  EXPECT_FALSE(counts.contains("aten.tanh.default"));
}

TEST(Fuse, SoftmaxWithItsScaleAndMask) {
  const auto counts = counts_of("written_attention");
  ASSERT_TRUE(counts.contains("_masked_softmax, written out"));
  EXPECT_EQ(counts.at("_masked_softmax, written out"), 2);
  EXPECT_EQ(counts.at("aten.softmax.int"), 1);  // whose mask depends on a parameter
  for (const char* op : {"aten.div.Tensor", "aten.masked_fill.Scalar"}) EXPECT_FALSE(counts.contains(op)) << op;
}

}  // namespace
}  // namespace hesspect::fuse_test
