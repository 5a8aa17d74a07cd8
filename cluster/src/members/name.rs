//! PURE: the order of names: `a-2` comes before `a-10`, as the pods of a StatefulSet do.

use std::cmp::Ordering;

/// Compares what comes before the trailing number, then the number, then the names as they are.
#[must_use]
pub fn compare(left: &str, right: &str) -> Ordering {
    let ((left_word, left_number), (right_word, right_number)) = (split(left), split(right));
    // Of two numbers without leading zeros the longer one is the larger: there is no limit to overflow.
    left_word
        .cmp(right_word)
        .then(left_number.len().cmp(&right_number.len()))
        .then(left_number.cmp(right_number))
        .then(left.cmp(right))
}

fn split(name: &str) -> (&str, &str) {
    let word = name.trim_end_matches(|letter: char| letter.is_ascii_digit());
    (word, name[word.len()..].trim_start_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailing_numbers_are_numbers() {
        let sorted = ["a", "a-0", "a-02", "a-2", "a-10", "a-99999999999999999999999", "b-1"];
        let mut names = sorted;
        names.reverse();
        names.sort_by(|left, right| compare(left, right));
        assert_eq!(names, sorted);
        assert_eq!(compare("a-2", "a-2"), Ordering::Equal);
    }
}
