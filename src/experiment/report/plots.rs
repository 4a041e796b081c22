//! Figures as SVG texts that stand by themselves, for a report or a paper.

use plotters::coord::Shift;
use plotters::coord::ranged1d::IntoSegmentedCoord;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use super::stats::Estimate;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Pixels for what is drawn, without names beside it.
const PLOT: u32 = 510;
const HEIGHT: u32 = 340;
/// Pixels for a row of a figure with rows.
const ROW: u32 = 26;
/// Units to a pixel where curves are drawn: coordinates are whole numbers of them.
const FINE: u32 = 4;
const FONT: &str = "sans-serif";
const SMALL: u32 = 12;

/// Colours that people with any colour vision tell apart (M. Okabe, K. Ito, *Color Universal
/// Design*, 2008), black last.
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(170, 160, 40),
    RGBColor(60, 60, 60),
];
const FAINT: RGBColor = RGBColor(190, 190, 190);

/// A measured or computed point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dot {
    /// Where.
    pub x: f64,
    /// What.
    pub y: f64,
    /// Half its confidence interval.
    pub half: Option<f64>,
}

impl From<(f64, f64)> for Dot {
    fn from((x, y): (f64, f64)) -> Self {
        Self { x, y, half: None }
    }
}

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// A line.
    Line,
    /// A thick black line, before all others.
    Main,
    /// Dots with their intervals, joined.
    Dots,
    /// A dashed line.
    Limit,
}

/// Points that belong together.
#[derive(Clone, Debug)]
pub struct Series {
    /// What they are.
    pub name: String,
    /// How they look.
    pub mark: Mark,
    /// Which colour; series of the same number have the same.
    pub colour: usize,
    /// In the order of x.
    pub dots: Vec<Dot>,
}

/// What stands at the axes.
#[derive(Clone, Debug, Default)]
pub struct Axes {
    /// What x is, with its unit.
    pub x: String,
    /// What y is, with its unit.
    pub y: String,
    /// Where y ends, if not where the points do; it begins at 0.
    pub y_max: Option<f64>,
    /// Where x begins and ends, if not where the points do.
    pub x_range: Option<(f64, f64)>,
}

impl Axes {
    /// Of a share over time or so, from 0 to 1.
    pub fn share(x: &str, y: &str) -> Self {
        Self { x: x.to_owned(), y: y.to_owned(), y_max: Some(1.0), x_range: None }
    }
}

/// A drawing of that size in pixels, with so many units to a pixel.
fn svg((width, height): (u32, u32), units: u32, draw: impl FnOnce(&Area<'_>) -> Drawn) -> String {
    let mut text = String::new();
    let size = (width * units, height * units);
    let drawn = {
        let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
        area.fill(&WHITE)
            .map_err(Into::into)
            .and_then(|()| draw(&area))
            .and_then(|()| area.present().map_err(Into::into))
    };
    // Writing into a string does not fail; if it does, a reader should see why a figure is not there.
    let failed = |why| format!("<p>This figure could not be drawn: {why}</p>");
    // The view box keeps its units.
    let head = |(width, height): (u32, u32)| format!("width=\"{width}\" height=\"{height}\"");
    let sized = || text.replacen(&head(size), &head((width, height)), 1);
    drawn.map_or_else(failed, |()| sized())
}

/// The colour of that number; a second round is lighter.
fn colour(number: usize) -> RGBAColor {
    let strength = if (number / COLOURS.len()).is_multiple_of(2) { 1.0 } else { 0.5 };
    COLOURS.get(number % COLOURS.len()).copied().unwrap_or(BLACK).mix(strength)
}

/// A range that an axis can have, whatever the values.
fn axis(low: f64, high: f64) -> std::ops::Range<f64> {
    if low.is_finite() && high.is_finite() && high > low { low..high } else { 0.0..1.0 }
}

/// A number as short as it can be told from its neighbours on an axis of that length.
fn short(value: f64, span: f64) -> String {
    let digits = (1.0 - span.log10().floor()).clamp(0.0, 9.0) as usize;
    format!("{value:.digits$}")
}

/// Pixels that a text is wide, about: fonts are the reader's.
fn text_width(text: &str) -> u32 {
    7 * u32::try_from(text.chars().count()).unwrap_or(0)
}

/// Pixels that the widest of some texts takes, within bounds.
fn widest<'a>(texts: impl Iterator<Item = &'a str>, least: u32, most: u32) -> u32 {
    texts.map(text_width).max().unwrap_or(0).clamp(least, most)
}

fn legend(area: &Area<'_>, series: &[Series]) -> Drawn {
    let font = (FONT, SMALL * FINE).into_font();
    for (index, one) in series.iter().enumerate() {
        let fine = FINE as i32;
        let y = (16 + 17 * index as i32) * fine;
        let (width, shade) = look(one);
        let style = shade.stroke_width(width * FINE);
        match one.mark {
            Mark::Limit => {
                area.draw(&PathElement::new([(4 * fine, y), (11 * fine, y)], style))?;
                area.draw(&PathElement::new([(17 * fine, y), (24 * fine, y)], style))?;
            }
            _ => area.draw(&PathElement::new([(4 * fine, y), (24 * fine, y)], style))?,
        }
        area.draw(&Text::new(one.name.clone(), (30 * fine, y - 6 * fine), font.clone()))?;
    }
    Ok(())
}

fn look(series: &Series) -> (u32, RGBAColor) {
    match series.mark {
        Mark::Main => (3, BLACK.mix(1.0)),
        Mark::Line | Mark::Limit => (1, colour(series.colour)),
        Mark::Dots => (2, colour(series.colour)),
    }
}

/// Series over x, with a legend.
pub fn lines(axes: &Axes, series: &[Series]) -> String {
    // Room for the legend's every line.
    let height = HEIGHT.max(40 + 17 * u32::try_from(series.len()).unwrap_or(0));
    let legend_width = 34 + widest(series.iter().map(|one| &*one.name), 80, 420);
    svg((PLOT + legend_width, height), FINE, |area| {
        let (left, right) = area.split_horizontally(PLOT * FINE);
        let dots = || {
            series.iter().flat_map(|one| &one.dots).filter(|d| d.x.is_finite() && d.y.is_finite())
        };
        let most = dots().map(|dot| dot.y + dot.half.unwrap_or(0.0)).fold(0.0, f64::max);
        let least_x = dots().map(|dot| dot.x).fold(f64::INFINITY, f64::min);
        let most_x = dots().map(|dot| dot.x).fold(f64::NEG_INFINITY, f64::max);
        let (from, to) = axes.x_range.unwrap_or((least_x, most_x));
        let (x, y) = (axis(from, to), axis(0.0, axes.y_max.unwrap_or(most * 1.05)));
        let (x_span, y_span) = (x.end - x.start, y.end - y.start);
        let mut chart = ChartBuilder::on(&left)
            .margin(8 * FINE)
            .x_label_area_size(38 * FINE)
            .y_label_area_size(52 * FINE)
            .build_cartesian_2d(x, y)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(FAINT.mix(0.5).stroke_width(FINE))
            .axis_style(FAINT.stroke_width(FINE))
            .set_all_tick_mark_size(5 * FINE)
            .x_desc(axes.x.clone())
            .y_desc(axes.y.clone())
            .x_label_formatter(&|x| short(*x, x_span))
            .y_label_formatter(&|y| short(*y, y_span))
            .label_style((FONT, SMALL * FINE))
            .axis_desc_style((FONT, 13 * FINE))
            .draw()?;
        series.iter().try_for_each(|one| line(&mut chart, one))?;
        legend(&right, series)
    })
}

/// One series, by its mark.
fn line(chart: &mut Chart<'_, '_>, one: &Series) -> Drawn {
    let (width, shade) = look(one);
    let style = shade.stroke_width(width * FINE);
    let finite = |dot: &&Dot| dot.x.is_finite() && dot.y.is_finite();
    let points = one.dots.iter().filter(finite).map(|dot| (dot.x, dot.y));
    if one.mark == Mark::Limit {
        let dashes = DashedLineSeries::new(points.clone(), 5 * FINE, 4 * FINE, style);
        chart.draw_series(dashes)?;
    } else {
        chart.draw_series(LineSeries::new(points.clone(), style))?;
    }
    if one.mark == Mark::Dots {
        chart.draw_series(points.map(|at| Circle::new(at, 3 * FINE, shade.filled())))?;
        let bars = one.dots.iter().filter(finite).filter_map(|dot| Some((dot, dot.half?)));
        chart.draw_series(bars.map(|(dot, half)| {
            let (low, high) = ((dot.y - half).max(0.0), dot.y + half);
            let style = shade.stroke_width(FINE);
            ErrorBar::new_vertical(dot.x, low, dot.y, high, style, 8 * FINE)
        }))?;
    }
    Ok(())
}

/// One value with its interval per row, names at the left. `x_max`: where the axis ends, if not
/// where the values do.
pub fn rows(x: &str, x_max: Option<f64>, values: &[(String, Estimate)]) -> String {
    // An axis of one row is none.
    let n = u32::try_from(values.len()).unwrap_or(u32::MAX).clamp(2, 1000);
    let names = 14 + widest(values.iter().map(|(name, _)| &**name), 80, 520);
    svg((names + PLOT - 60, 60 + ROW * n), 1, |area| {
        let high = |estimate: &Estimate| estimate.mean + estimate.half.unwrap_or(0.0);
        let most = values.iter().map(|(_, estimate)| high(estimate)).fold(0.0, f64::max);
        let range = axis(0.0, x_max.unwrap_or(most * 1.1));
        let span = range.end;
        let name = |row: &SegmentValue<i32>| match row {
            SegmentValue::CenterOf(row) => {
                let index = i64::from(n) - 1 - i64::from(*row);
                usize::try_from(index).ok().and_then(|i| Some(values.get(i)?.0.clone()))
            }
            _ => None,
        };
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .margin_right(24)
            .x_label_area_size(38)
            .y_label_area_size(names)
            .build_cartesian_2d(range, (0..n as i32 - 1).into_segmented())?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(FAINT.mix(0.5))
            .axis_style(FAINT)
            .x_desc(x)
            .y_labels(n as usize)
            .x_label_formatter(&|x| short(*x, span))
            .y_label_formatter(&|row| name(row).unwrap_or_default())
            .label_style((FONT, SMALL))
            .axis_desc_style((FONT, 13))
            .draw()?;
        for (index, (_, estimate)) in values.iter().enumerate() {
            let row = SegmentValue::CenterOf(n as i32 - 1 - index as i32);
            let half = estimate.half.unwrap_or(0.0);
            let (low, high) = ((estimate.mean - half).max(0.0), estimate.mean + half);
            let style = colour(0).stroke_width(2);
            chart.draw_series([ErrorBar::new_horizontal(
                row,
                low,
                estimate.mean,
                high,
                style,
                10,
            )])?;
        }
        Ok(())
    })
}

/// Shares of rows by column, shaded: in row i and column j what part of row i falls to j. There may
/// be more columns than rows.
pub fn matrix(
    row_name: &str,
    column_name: &str,
    rows: &[String],
    columns: &[String],
    counts: &[Vec<u32>],
) -> String {
    let cell = (520 / columns.len().max(1)).clamp(12, 44) as u32;
    let size = |names: &[String]| cell * u32::try_from(names.len()).unwrap_or(0);
    let names = widest(rows.iter().chain(columns).map(String::as_str), 60, 300);
    let (left, top) = (names + 26, names + 16);
    svg((size(columns) + left + 16, size(rows) + top + 12), 1, |area| {
        let font = (FONT, if cell > 34 { SMALL } else { 10 }).into_font();
        let at = |i: usize| (i as u32 * cell) as i32;
        let (left, top) = (left as i32, top as i32);
        area.draw(&Text::new(format!("{column_name} →"), (left, 6), (FONT, 13).into_font()))?;
        area.draw(&Text::new(format!("{row_name} ↓"), (4, 26), (FONT, 13).into_font()))?;
        for (j, name) in columns.iter().enumerate() {
            let place = (left + at(j) + cell as i32 / 2 - 6, top - 4);
            let tilted = font.clone().transform(FontTransform::Rotate270);
            area.draw(&Text::new(name.clone(), place, tilted))?;
        }
        for (i, (name, row)) in rows.iter().zip(counts).enumerate() {
            let place = (6, top + at(i) + cell as i32 / 2 - 6);
            area.draw(&Text::new(name.clone(), place, font.clone()))?;
            let whole = f64::from(row.iter().sum::<u32>().max(1));
            for (j, count) in row.iter().take(columns.len()).enumerate() {
                let share = f64::from(*count) / whole;
                let (x, y) = (left + at(j), top + at(i));
                let corners = [(x, y), (x + cell as i32 - 1, y + cell as i32 - 1)];
                let shade = colour(0).mix(share.sqrt());
                area.draw(&Rectangle::new(corners, FAINT.mix(0.25).filled()))?;
                area.draw(&Rectangle::new(corners, shade.filled()))?;
                if cell >= 24 && *count > 0 {
                    let ink = if share > 0.3 { WHITE } else { BLACK };
                    let text = format!("{:.0}", share * 100.0);
                    let place =
                        (x + cell as i32 / 2 - 3 * text.len() as i32, y + cell as i32 / 2 - 6);
                    area.draw(&Text::new(text, place, font.clone().color(&ink)))?;
                }
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_hold_their_names_whatever_the_values() {
        for y in [0.5, 0.0, 1e-7, f64::NAN, f64::INFINITY] {
            let series = Series {
                name: "<one>".to_owned(),
                mark: Mark::Dots,
                colour: 0,
                dots: vec![Dot { x: 1.0, y, half: Some(0.1) }, (2.0, 0.5).into()],
            };
            let drawn = lines(&Axes::share("time", "share"), &[series]);
            assert!(drawn.starts_with("<svg") && drawn.contains("&lt;one&gt;"), "{drawn}");
            // A dot for each that can be drawn.
            let dots = drawn.matches("<circle").count();
            // Each dot, and one more where its interval is.
            assert_eq!(dots, if y.is_finite() { 3 } else { 1 }, "{y}: {drawn}");
            let estimate = Estimate { mean: y, half: None };
            let drawn = rows("share", None, &[("a scheduler".to_owned(), estimate)]);
            assert!(drawn.starts_with("<svg") && drawn.contains("a scheduler"), "{drawn}");
        }
        assert!(lines(&Axes::default(), &[]).starts_with("<svg"));
        assert!(rows("x", None, &[]).starts_with("<svg"));
    }

    #[test]
    fn a_matrix_shows_each_rows_shares() {
        let names = ["a".to_owned(), "b".to_owned()];
        let (rows, columns) = (&names[..1], &names[..]);
        let drawn = matrix("from", "to", rows, columns, &[vec![3, 1]]);
        assert!(drawn.contains("\n75\n") && drawn.contains("\n25\n"), "{drawn}");
    }

    #[test]
    fn numbers_at_an_axis_are_told_apart() {
        assert_eq!([0.0005, 0.001].map(|x| short(x, 0.003)), ["0.0005", "0.0010"]);
        assert_eq!([0.1, 0.2].map(|x| short(x, 1.0)), ["0.1", "0.2"]);
        assert_eq!([20.0, 40.0].map(|x| short(x, 180.0)), ["20", "40"]);
    }
}
