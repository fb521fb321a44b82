import unittest


def test_subtests(subtests):
    for number in range(2):
        with subtests.test(number=number):
            assert number == 0


def test_subtest_leaks(subtests, leave_a_thread):
    with subtests.test("one"):
        leave_a_thread()


class SubTests(unittest.TestCase):
    def test_subtests(self):
        for number in range(2):
            with self.subTest(number=number):
                assert number == 0
