//! Which country codes there are.
//!
//! ISO 3166-1 assigns 249 two-letter codes. Beside them `XK` is in use for Kosovo everywhere, and `ZZ` says that
//! the country is unknown (CLDR); both are of those that the standard leaves to its users. No other code names a
//! country: not those reserved as synonyms (`UK`, `EL`, `EU`), which would split a country in two, and not those
//! that proxies send for want of a country (`XX`, `T1`, `A1`, `AP`), which would make one of nowhere.
//!
//! This is asked of what comes in over HTTP, and of data files. A record that is in the log already is read by its
//! shape alone ([`super::codec::Fields::country`]): codes come and go, and what was once accepted stays a fact.

/// The assigned codes of ISO 3166-1 (since 2011, with South Sudan), and `XK` and `ZZ`; in order.
const CODES: &str = "\
    AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ \
    CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO \
    FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE \
    JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO \
    MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW \
    PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM \
    TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS XK YE YT ZA ZM ZW ZZ";

/// Whether a code, two upper-case letters, names a country, or the unknown one.
pub fn exists(code: &str) -> bool {
    // Three bytes each: two letters and a space.
    let codes = CODES.as_bytes().chunks(3).map(|chunk| chunk.get(..2));
    code.len() == 2 && codes.flatten().any(|known| known == code.as_bytes())
}

/// What to say of a code that names none.
pub fn unknown(code: &str) -> String {
    format!("{code:?} is no country of ISO 3166-1; leave it out where it is not known")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assigned_codes_exist_and_no_others() {
        let codes: Vec<_> = CODES.split(' ').collect();
        assert_eq!(codes.len(), 249 + 2);
        assert!(codes.windows(2).all(|pair| pair[0] < pair[1]), "in order, each once");
        assert!(codes.iter().all(|code| exists(code)));
        for code in ["UK", "EU", "EL", "XX", "T1", "A1", "AP", "AA", "QQ", "no", "N", "NOR", "", " A", "A "] {
            assert!(!exists(code), "{code:?}");
        }
    }
}
