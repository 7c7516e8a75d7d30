#include "hesspect/core/text.h"

#include <gtest/gtest.h>

#include <limits>

namespace hesspect::text_test {
namespace {

TEST(Text, NearestName) {
  const std::vector<std::string> names{"probes", "steps", "micro_batch", "samples", "x", "input_ids"};
  EXPECT_EQ(nearest_name("probs", names), "probes");
  EXPECT_EQ(nearest_name("micro-batch", names), "micro_batch");
  EXPECT_EQ(nearest_name("micor_batch", names), "micro_batch");
  EXPECT_EQ(nearest_name("INPUT_IDS", names), "input_ids");
  EXPECT_EQ(nearest_name("qqqqqq", names), std::nullopt);
  EXPECT_EQ(nearest_name("y", names), std::nullopt);  // one edit away from 'x', but nothing of it is left
  EXPECT_EQ(nearest_name("", names), std::nullopt);
  EXPECT_EQ(nearest_name("probs", {}), std::nullopt);
  EXPECT_EQ(did_you_mean("step", names), " (did you mean 'steps'?)");
  EXPECT_EQ(did_you_mean("qqqqqq", names), "");
}

TEST(Text, QuoteKeepsToOneLine) {
  EXPECT_EQ(quote("a.weight"), "'a.weight'");
  EXPECT_EQ(quote("a\nb\x1b[2J\t\x7f"), "'a\\nb\\x1b[2J\\t\\x7f'");
  EXPECT_EQ(quote("größe"), "'größe'");
  const std::string cut = quote(std::string(299, 'a') + "ößö");
  EXPECT_EQ(cut, "'" + std::string(299, 'a') + "…'");
}

TEST(Text, Numbers) {
  EXPECT_EQ(format_number(0.1), "0.1");
  EXPECT_EQ(format_number(1.23456789e-5), "1.23457e-05");
  EXPECT_EQ(format_number(-3e6), "-3e+06");
  EXPECT_EQ(format_number(250000), "250000");
  EXPECT_EQ(format_number(std::numeric_limits<double>::infinity()), "inf");
}

TEST(Text, Bytes) {
  EXPECT_EQ(format_bytes(0), "0 B");
  EXPECT_EQ(format_bytes(1023), "1023 B");
  EXPECT_EQ(format_bytes(1024), "1.00 KiB");
  EXPECT_EQ(format_bytes(3 * (std::int64_t{1} << 29)), "1.50 GiB");
  EXPECT_EQ(format_bytes((std::int64_t{1} << 20) - 1), "1.00 MiB");
  EXPECT_EQ(format_bytes(std::numeric_limits<std::int64_t>::max()), "8192.00 PiB");
}

TEST(Text, Durations) {
  EXPECT_EQ(format_duration(0.0123), "0.0123 s");
  EXPECT_EQ(format_duration(12.34), "12.3 s");
  EXPECT_EQ(format_duration(59.99), "1m00s");
  EXPECT_EQ(format_duration(200), "3m20s");
  EXPECT_EQ(format_duration(3600 + 120), "1h02m");
  EXPECT_EQ(format_duration(3599.9), "1h00m");
  EXPECT_EQ(format_duration(50 * 3600), "2d02h");
  EXPECT_EQ(format_duration(std::numeric_limits<double>::infinity()), "?");
}

TEST(Text, ShapesCountsNames) {
  EXPECT_EQ(format_shape({}), "[]");
  EXPECT_EQ(format_shape({3, 5}), "[3, 5]");
  EXPECT_EQ(format_count(7), "7");
  EXPECT_EQ(format_count(1234), "1,234");
  EXPECT_EQ(format_count(22713986), "22,713,986");
  EXPECT_EQ(format_count(-100), "-100");
  EXPECT_EQ(format_count(-123456), "-123,456");
  EXPECT_EQ(format_names({"a", "b"}), "a, b");
  EXPECT_EQ(format_names({"a", "b", "c"}, 2), "a, b, … (+1 more)");
  EXPECT_EQ(format_names({}), "");
}

}  // namespace
}  // namespace hesspect::text_test
