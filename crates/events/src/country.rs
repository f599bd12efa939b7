//! The country codes that exist.
//!
//! ISO 3166-1 assigns 249 two-letter codes, and `XK` is commonly used for Kosovo. No other code names a country. Two
//! kinds of other codes occur:
//! - **placeholders** ([`PLACEHOLDERS`]), which sources send if they do not know the country. Every reader treats them
//!   as a missing country ([`super::codec::Fields::country`]), so they are neither a country that a user has been to
//!   nor a new one;
//! - anything else, such as synonyms (`UK`, `EL`), which would split a country in two, and typing errors. An incoming
//!   event with such a code is rejected. A record in the log keeps it: codes change, and an accepted event stays a
//!   fact.

/// The meaning of a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CountryCode {
    /// A country.
    Country,
    /// No country is known.
    Placeholder,
    /// Nothing.
    Unknown,
}

/// What sources send if they do not know the country: `ZZ` (Unicode CLDR), `XX` (content delivery networks), `T1` (the
/// same, for Tor), and those of older address files: `EU` and `AP` for a region, `A1` for an anonymous proxy, `A2` for
/// a satellite provider, `O1` for anything else.
pub(crate) const PLACEHOLDERS: [&str; 8] = ["A1", "A2", "AP", "EU", "O1", "T1", "XX", "ZZ"];

/// The assigned codes of ISO 3166-1 (since 2011, with South Sudan), and `XK`; sorted.
const CODES: &str = "\
    AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ \
    CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO \
    FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE \
    JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO \
    MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW \
    PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM \
    TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS XK YE YT ZA ZM ZW";

/// The meaning of a code in upper case.
pub(crate) fn classify(code: &str) -> CountryCode {
    if exists(code) {
        CountryCode::Country
    } else if PLACEHOLDERS.contains(&code) {
        CountryCode::Placeholder
    } else {
        CountryCode::Unknown
    }
}

/// Whether a code, two upper-case letters, names a country.
pub fn exists(code: &str) -> bool {
    // Three bytes each: two letters and a space.
    let codes = CODES.as_bytes().chunks(3).map(|chunk| chunk.get(..2));
    code.len() == 2 && codes.flatten().any(|known| known == code.as_bytes())
}

/// The error text for a code that names no country.
pub fn unknown(code: &str) -> String {
    format!("{code:?} is not an ISO 3166-1 country; omit the field if the country is unknown")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assigned_codes_exist_and_no_others() {
        let codes: Vec<_> = CODES.split(' ').collect();
        assert_eq!(codes.len(), 249 + 1);
        assert!(codes.windows(2).all(|pair| pair[0] < pair[1]), "in order, each once");
        assert!(codes.iter().all(|code| exists(code)));
        for code in ["UK", "EL", "AA", "QQ", "no", "zz", "N", "NOR", "", " A", "A ", "T2", "A3"] {
            assert_eq!(classify(code), CountryCode::Unknown, "{code:?}");
        }
    }

    #[test]
    fn placeholders_are_no_countries() {
        for code in ["ZZ", "XX", "T1", "EU", "AP", "A1", "A2", "O1"] {
            assert_eq!((classify(code), exists(code)), (CountryCode::Placeholder, false), "{code:?}");
        }
    }
}
